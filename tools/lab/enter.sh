#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# enter.sh [SOURCE TARGET]... -- COMMAND: run a shell command in the tool root,
# in mounts of its own. ROOT, REPO, BUILD, CARGO_TARGET and CACHE come from
# toolroot.py.
#
# The same places for every build, so that object files and caches do not
# depend on where the checkout lies.
set -e
bind() { mkdir -p "$ROOT$2"; mount --bind "$1" "$ROOT$2"; }
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
bind "$REPO" /repo
bind "$BUILD" /kernel
bind "$CARGO_TARGET" /kernel/cargo
bind "$CACHE/ccache" /ccache
bind "$CACHE/cargo" /cargo
if [ -f /etc/resolv.conf ]; then
    cp -L /etc/resolv.conf "$ROOT/tmp/resolv.conf"
    mount --bind "$ROOT/tmp/resolv.conf" "$ROOT/etc/resolv.conf"
fi
for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
    if [ -f "$bundle" ]; then mount --bind "$bundle" "$ROOT/etc/ssl/certs/ca-certificates.crt"; break; fi
done
if [ -f /etc/pip.conf ]; then touch "$ROOT/etc/pip.conf"; mount --bind /etc/pip.conf "$ROOT/etc/pip.conf"; fi
while [ "$1" != -- ]; do bind "$1" "$2"; shift 2; done
shift
pass=()
if [ -n "$PASS" ]; then mapfile -t pass <<< "$PASS"; fi
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    CCACHE_DIR=/ccache CCACHE_MAXSIZE=4G CARGO_TARGET_DIR=/kernel/cargo CARGO_HOME=/cargo \
    CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt TERM="${TERM:-dumb}" "${pass[@]}" bash -c "$1"
