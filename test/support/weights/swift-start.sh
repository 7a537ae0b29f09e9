#!/usr/bin/env bash
# Starts Debian's OpenStack Swift with its S3 API on loopback, as a real S3-compatible server for integration tests.
#   apt-get install -y --no-install-recommends swift swift-proxy swift-account swift-container swift-object
# Usage: test/support/weights/swift-start.sh DIR [PORT]   (DIR on a filesystem with user xattrs; default port 4610)
# Endpoint http://127.0.0.1:PORT, path style, key test:tester, secret testing, region us-east-1. Prints the pids to DIR/pids.
# Known gaps: conditional PUT (If-None-Match: *) answers 501; x-amz-checksum-* is accepted unchecked.
set -euo pipefail
dir=$(realpath -m "$1"); port=${2:-4610}; etc=$dir/etc; mkdir -p "$etc" "$dir/node/sdb1" "$dir/log"
printf '[swift-hash]\nswift_hash_path_suffix = s\nswift_hash_path_prefix = p\n[storage-policy:0]\nname = gold\ndefault = yes\n' > "$etc/swift.conf"
i=0
for kind in object container account; do
  p=$((port + 10 + i)); i=$((i + 1))
  printf '[DEFAULT]\ndevices = %s/node\nmount_check = false\nbind_ip = 127.0.0.1\nbind_port = %s\nworkers = 1\nuser = %s\nswift_dir = %s\n[pipeline:main]\npipeline = %s-server\n[app:%s-server]\nuse = egg:swift#%s\n' "$dir" "$p" "$(id -un)" "$etc" $kind $kind $kind > "$etc/$kind-server.conf"
  (cd "$etc" && rm -f $kind.builder $kind.ring.gz && swift-ring-builder $kind.builder create 6 1 1 >/dev/null && swift-ring-builder $kind.builder add r1z1-127.0.0.1:$p/sdb1 1 >/dev/null && swift-ring-builder $kind.builder rebalance >/dev/null)
done
cat > "$etc/proxy-server.conf" <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port
workers = 1
user = $(id -un)
swift_dir = $etc
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:11219
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
min_segment_size = 5242880
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
CONF
: > "$dir/pids"
for s in object container account proxy; do
  swift-$s-server "$etc/$s-server.conf" > "$dir/log/$s.log" 2>&1 & echo $! >> "$dir/pids"
done
for _ in $(seq 100); do curl -fs "http://127.0.0.1:$port/info" >/dev/null && { echo "swift ready on $port"; exit 0; }; sleep 0.2; done
echo "swift did not start; see $dir/log" >&2; exit 1
