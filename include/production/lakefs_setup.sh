#!/bin/sh
# Makes lakeFS's first user before the server starts, so that nobody else can; later runs find it made.
# lakeFS reads LAKEFS_INSTALLATION_... by itself only when its database is a local file.
set -eu
if said=$(lakefs setup --user-name "$LAKEFS_INSTALLATION_USER_NAME" \
    --access-key-id "$LAKEFS_INSTALLATION_ACCESS_KEY_ID" \
    --secret-access-key "$LAKEFS_INSTALLATION_SECRET_ACCESS_KEY" 2>&1); then
    echo "made the user $LAKEFS_INSTALLATION_USER_NAME" # and not what lakeFS said, which is the secret
    exit 0
fi
case $said in
*"Setup is already complete"*) echo "lakeFS is set up already" ;;
*)
    echo "$said" >&2
    exit 1
    ;;
esac
