#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the judges share: results as KTAP, and two ports of the device model
# that are wired to each other, the second in a network namespace. Expects
# DRIVER, sets NEAR and FAR.

# shellcheck disable=SC2034,SC2317 # for the judges; functions are called through check

PEER=peer
V4=192.168.77
V6=fd77::
count=0
failed=0

report() {
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count $2"
    else
        echo "not ok $count $2"
        failed=1
    fi
}

# Runs a command quietly; shows its output only if it fails.
check() {
    local name=$1 output status
    shift
    output=$("$@" 2>&1)
    status=$?
    if [ $status -ne 0 ]; then
        while read -r line; do echo "# $line"; done <<< "$output"
    fi
    report $status "$name"
}

skip() {
    count=$((count + 1))
    echo "ok $count $1 # SKIP $DRIVER cannot do this"
}

in_peer() {
    ip netns exec "$PEER" "$@"
}

wait_for() {
    local i
    for ((i = 0; i < 200; i++)); do
        "$@" && return 0
        sleep 0.05
    done
    echo "waited in vain: $*"
    return 1
}

has_ports() {
    local dirs=(/sys/bus/pci/drivers/"$DRIVER"/*/net/*)
    [ ${#dirs[@]} -eq 2 ] && [ -d "${dirs[1]}" ]
}

carrier_is() {
    [ "$(cat "/sys/class/net/$NEAR/carrier" 2> /dev/null)" = "$1" ]
}

load() {
    modprobe "$DRIVER" || return 1
    if [ "$DRIVER" = mlx5_core ]; then
        echo 1234 10dd > /sys/bus/pci/drivers/mlx5_core/new_id
    fi
    wait_for has_ports || return 1
    local dirs=(/sys/bus/pci/drivers/"$DRIVER"/*/net/*)
    NEAR=$(basename "${dirs[0]}")
    FAR=$(basename "${dirs[1]}")
}

open() {
    ip link set "$FAR" netns "$PEER"
    ip addr add $V4.1/24 dev "$NEAR"
    ip addr add ${V6}1/64 dev "$NEAR" nodad
    ip -n "$PEER" addr add $V4.2/24 dev "$FAR"
    ip -n "$PEER" addr add ${V6}2/64 dev "$FAR" nodad
    ip link set "$NEAR" up
    ip -n "$PEER" link set "$FAR" up
    wait_for carrier_is 1
}

# Sends 16 MiB and compares checksums.
transfer() {
    python3 - "$1" << 'EOF'
import hashlib
import os
import socket
import subprocess
import sys

family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
receiver = f"""
import hashlib, socket
server = socket.create_server(({sys.argv[1]!r}, 5000), family={int(family)})
print("listening", flush=True)
peer, _ = server.accept()
digest = hashlib.sha256()
while data := peer.recv(1 << 20):
    digest.update(data)
print(digest.hexdigest())
"""
child = subprocess.Popen(["ip", "netns", "exec", "peer", "python3", "-c", receiver], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "listening\n"
digest = hashlib.sha256()
with socket.socket(family) as sender:
    sender.settimeout(60)
    sender.connect((sys.argv[1], 5000))
    for _ in range(16):
        data = os.urandom(1 << 20)
        digest.update(data)
        sender.sendall(data)
received = child.stdout.readline().strip()
sys.exit(received != digest.hexdigest())
EOF
}
