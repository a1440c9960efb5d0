# SPDX-License-Identifier: GPL-2.0
"""Run commands inside the tool root."""

import os
import shlex
import subprocess

from paths import BUILD, CACHE, REPO, ROOT

# The same places for every build, so that object files and caches do not
# depend on where the checkout lies.
ENTER = r"""
set -e
bind() { mkdir -p "$ROOT$2"; mount --bind "$1" "$ROOT$2"; }
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/tmp"
bind "$REPO" /repo
bind "$BUILD" /kernel
bind "$CACHE/ccache" /ccache
bind "$CACHE/cargo" /root/.cargo
cp -L /etc/resolv.conf "$ROOT/tmp/resolv.conf" && mount --bind "$ROOT/tmp/resolv.conf" "$ROOT/etc/resolv.conf"
if [ -f "${SSL_CERT_FILE:-}" ]; then mount --bind "$SSL_CERT_FILE" "$ROOT/etc/ssl/certs/ca-certificates.crt"; fi
while [ "$1" != -- ]; do bind "$1" "$2"; shift 2; done
shift
exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    CCACHE_DIR=/ccache CCACHE_MAXSIZE=4G CARGO_TARGET_DIR=/kernel/cargo \
    CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt TERM="${TERM:-dumb}" bash -c "$1"
"""


def run(command, binds=(), check=True, **kwargs):
    """Run a shell command in the tool root: /repo is the checkout, /kernel the build."""
    for path in (BUILD, CACHE / "ccache", CACHE / "cargo"):
        path.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, ROOT=str(ROOT), REPO=str(REPO), BUILD=str(BUILD), CACHE=str(CACHE))
    flat = [str(part) for pair in binds for part in pair]
    if not isinstance(command, str):
        command = shlex.join(command)
    argv = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTER, "enter", *flat, "--", command]
    return subprocess.run(argv, env=env, check=check, **kwargs)
