#!/bin/sh
# Makes the buckets that are named as arguments and are not there yet; runs beside SeaweedFS at every start.
set -eu
master=${SEAWEEDFS_MASTER:-127.0.0.1:9333}
there=$(echo s3.bucket.list | weed shell -master="$master" | awk '{print $1}')
for bucket in "$@"; do
    if ! echo "$there" | grep -qx "$bucket"; then
        echo "s3.bucket.create -name $bucket" | weed shell -master="$master"
    fi
done
