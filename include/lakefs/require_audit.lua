-- Refuses a merge whose commit does not say which audits let it through. See require_audit.yaml.
local regexp = require("regexp")

local audit = action.commit.metadata["overnight.audit"]
if audit == nil or not regexp.match("^[0-9a-f]{64}$", audit) then
    error("a merge to " .. action.branch_id .. " needs overnight.audit, the digest over its audits: publish through Overnight")
end
