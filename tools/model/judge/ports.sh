#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A network driver on the device model: the stock mlx5_core, which judges the
# model, or the one named by DRIVER. Runs in the guest, with two ports of the
# model wired to each other:
#   python3 tools/lab vm --ports 2 --run 'bash /opt/repo/tools/model/judge/ports.sh'
# Prints KTAP; the status is that of the worst test.

# shellcheck disable=SC2317 # functions are called through check

DRIVER=${DRIVER:-mlx5_core}
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

in_peer() {
    ip netns exec "$PEER" "$@"
}

wait_for() {
    local i
    for ((i = 0; i < 200; i++)); do
        "$@" && return 0
        sleep 0.05
    done
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

set_mtu() {
    ip link set "$NEAR" mtu "$1" && ip -n "$PEER" link set "$FAR" mtu "$1" && wait_for carrier_is 1
}

# Sends 32 MiB and compares checksums.
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
    for _ in range(32):
        data = os.urandom(1 << 20)
        digest.update(data)
        sender.sendall(data)
received = child.stdout.readline().strip()
sys.exit(received != digest.hexdigest())
EOF
}

counter() {
    in_peer ethtool -S "$FAR" | awk -v name="$1:" '$1 == name { print $2 }'
}

vlan_ping() {
    ip link add link "$NEAR" name v5 type vlan id 5 && ip addr add 10.77.5.1/24 dev v5 && ip link set v5 up || return 1
    ip -n "$PEER" link add link "$FAR" name v5 type vlan id 5 && ip -n "$PEER" addr add 10.77.5.2/24 dev v5 &&
        ip -n "$PEER" link set v5 up && ping -c 2 -i 0.2 -W 5 10.77.5.2
}

link_follows_peer() {
    ip -n "$PEER" link set "$FAR" down && wait_for carrier_is 0 && ip -n "$PEER" link set "$FAR" up && wait_for carrier_is 1
}

reload_under_traffic() {
    local ping status
    ping -f $V4.2 > /dev/null 2>&1 &
    ping=$!
    sleep 0.5
    rmmod "$DRIVER"
    status=$?
    kill $ping
    wait $ping
    [ $status -eq 0 ] || return 1
    load && open && ping -c 2 -i 0.2 -W 5 $V4.2
}

checksums_are_used() {
    local complete errors
    errors=$(in_peer nstat -asz TcpInCsumErrors | awk '/TcpInCsumErrors/ { print $2 }')
    echo "TcpInCsumErrors $errors"
    [ "$errors" = 0 ] || return 1
    if [ "$DRIVER" = mlx5_core ]; then
        complete=$(counter rx_csum_complete)
        echo "rx_csum_complete $complete"
        [ "$complete" -gt 1000 ]
    fi
}

no_complaints() {
    ! dmesg | grep -E "cmd_out_err|hw csum failure|BUG|WARNING|Call Trace|NETDEV WATCHDOG|timeout"
}

echo "KTAP version 1"
echo "1..14"
ip netns add "$PEER"
ip -n "$PEER" link set lo up
# In this shell: it sets the names of the interfaces.
load
report $? "probe"
check "link up" open
check "ping, IPv4" ping -c 3 -i 0.2 -W 5 $V4.2
check "ping, IPv6" ping -c 3 -i 0.2 -W 5 ${V6}2
check "TCP over IPv4, MTU 1500" transfer $V4.2
check "TCP over IPv6, MTU 1500" transfer ${V6}2
check "the device's checksums are right" checksums_are_used
largest=$(ip -d -j link show dev "$NEAR" | jq '.[0].max_mtu')
check "largest MTU" set_mtu "$largest"
check "TCP over IPv4, largest MTU" transfer $V4.2
check "VLAN" vlan_ping
check "link follows the peer" link_follows_peer
if ethtool -l "$NEAR" > /dev/null 2>&1; then
    check "one channel" ethtool -L "$NEAR" combined 1
else
    count=$((count + 1))
    echo "ok $count one channel # SKIP $DRIVER cannot change channels"
fi
reload_under_traffic > /dev/null
report $? "unload under traffic, load again"
check "no failed command, no warning" no_complaints
exit $failed
