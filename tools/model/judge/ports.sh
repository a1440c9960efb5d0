#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A network driver on the device model: the stock mlx5_core, which judges the
# model, or the one named by DRIVER. Runs in the guest, with two ports of the
# model wired to each other:
#   python3 tools/lab vm --ports 2 --run 'bash /opt/repo/tools/model/judge/ports.sh'
# Prints KTAP; the status is that of the worst test. ROUNDS is how often the
# driver is unloaded and loaded under traffic.

# shellcheck disable=SC2317 # functions are called through check

DRIVER=${DRIVER:-mlx5_core}
ROUNDS=${ROUNDS:-1}
# shellcheck source=tools/model/judge/lib.bash
. "$(dirname "$0")/lib.bash"

set_mtu() {
    ip link set "$NEAR" mtu "$1" && ip -n "$PEER" link set "$FAR" mtu "$1" && wait_for carrier_is 1
}

# Interrupts wait for more packets, but not for longer than they may.
moderation() {
    local slowest
    ethtool -C "$NEAR" adaptive-rx off adaptive-tx off rx-usecs 200 rx-frames 64 tx-usecs 200 tx-frames 64 || return 1
    slowest=$(ping -q -c 50 -i 0.02 -W 2 "$V4.2" | sed -n 's|^rtt.*= [^/]*/[^/]*/\([0-9]*\).*|\1|p')
    echo "slowest reply: $slowest ms"
    [ "${slowest:-9999}" -lt 500 ] && timeout 20 ping -q -f -c 2000 "$V4.2" && transfer "$V4.2" &&
        ethtool -C "$NEAR" adaptive-rx on adaptive-tx on rx-usecs 0 rx-frames 0 tx-usecs 0 tx-frames 0
}

# Interrupts of the port for completed commands and the like: its first vector.
command_interrupts() {
    local vectors=("/sys/class/net/$NEAR/device/msi_irqs/"*)
    local first
    first=$(basename -a "${vectors[@]}" | sort -n | head -n 1)
    awk -v first="$first:" '$1 == first { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i; print sum }' /proc/interrupts
}

# Commands while the peer sends small packets as fast as it can.
commands_under_load() {
    local before
    before=$(command_interrupts)
    in_peer iperf3 --server --one-off --daemon > /dev/null && wait_for listens > /dev/null || return 1
    iperf3 --time 2 --udp --bitrate 0 --length 64 --client "$V4.2" --reverse > /dev/null || return 1
    echo $(($(command_interrupts) - before))
}

# Moderation that adapts has the device change queues while packets come; otherwise there is nothing to command. How many interrupts
# that saves depends on what else the machine does that runs the guest.
adaptive_moderation() {
    local without with
    ethtool -C "$NEAR" adaptive-rx off adaptive-tx off rx-usecs 0 rx-frames 0 && without=$(commands_under_load) || return 1
    ethtool -C "$NEAR" adaptive-rx on adaptive-tx on && with=$(commands_under_load) || return 1
    echo "interrupts for commands: $without, adaptive $with"
    [ "$with" -gt $((without + 3)) ]
}

# A packet takes one half of a page, a page, or more than one: mlx5_rs goes over to more at these.
odd_mtus() {
    local mtu
    for mtu in 1646 1647 3694 3695 7790 7791; do
        set_mtu "$mtu" && ping -q -M "do" -c 3 -i 0.05 -W 1 -s $((mtu - 28)) "$V4.2" && transfer "$V4.2" || return 1
    done
}

listens() {
    in_peer ss -Hltn 'sport = 5201' | grep -q .
}

# iperf3 to an address of the peer for a second, the options as given. Of the
# datagrams of UDP the most must arrive: a guest that emulates its CPUs is late.
iperf() {
    in_peer iperf3 --server --one-off --daemon > /dev/null && wait_for listens &&
        iperf3 --json --time 1 --client "$@" | jq --exit-status '.end | .sum_received.bytes > 100000 and (.sum.lost_percent // 0) < 50'
}

both_ways() {
    iperf "$@" && iperf "$@" --reverse
}

channels_are_cpus() {
    # The second line of that name is what there is now.
    [ "$(ethtool -l "$NEAR" | awk '$1 == "Combined:" { now = $2 } END { print now }')" -eq "$(nproc)" ]
}

# Channels and rings change while data flows; the connection must survive.
change_under_traffic() {
    local iperf status=0
    in_peer iperf3 --server --one-off --daemon > /dev/null
    wait_for listens
    iperf3 --time 6 --client "$V4.2" > /dev/null &
    iperf=$!
    sleep 0.5
    for _ in 1 2; do
        ethtool -L "$NEAR" combined 1 && ethtool -G "$NEAR" rx 256 tx 256 && sleep 0.3 &&
            ethtool -L "$NEAR" combined "$(nproc)" && ethtool -G "$NEAR" rx 1024 tx 1024 && sleep 0.3 || status=1
    done
    wait "$iperf" && [ "$status" -eq 0 ]
}

counter() {
    in_peer ethtool -S "$FAR" | awk -v name="$1:" '$1 == name { print $2 }'
}

# What one end has sent the other has received.
counters_agree() {
    local sent received
    sent=$(ethtool -S "$NEAR" | awk '$1 == "tx_packets_phy:" { print $2 }')
    received=$(counter rx_packets_phy)
    echo "sent $sent received $received"
    [ -n "$sent" ] && [ "$sent" -gt 1000 ] && [ "$sent" -le "$received" ] && [ $((received - sent)) -lt 20 ]
}

vlan() {
    ip link add link "$NEAR" name v5 type vlan id 5 && ip addr add 10.77.5.1/24 dev v5 && ip link set v5 up || return 1
    ip -n "$PEER" link add link "$FAR" name v5 type vlan id 5 && ip -n "$PEER" addr add 10.77.5.2/24 dev v5 &&
        ip -n "$PEER" link set v5 up && ping -c 2 -i 0.2 -W 5 10.77.5.2 && both_ways 10.77.5.2
}

link_follows_peer() {
    ip -n "$PEER" link set "$FAR" down && wait_for carrier_is 0 && ip -n "$PEER" link set "$FAR" up && wait_for carrier_is 1
}

reload_under_traffic() {
    local round
    for ((round = 0; round < ROUNDS; round++)); do
        reload || return 1
    done
}

reload() {
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
echo "1..24"
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
check "TCP over IPv4, both ways" both_ways $V4.2
check "TCP over IPv6, both ways" both_ways ${V6}2
check "UDP over IPv4, both ways" both_ways $V4.2 --udp --bitrate 20M --length 1400
check "UDP over IPv6, both ways" both_ways ${V6}2 --udp --bitrate 20M --length 1400
check "the device's checksums are right" checksums_are_used
check "moderated interrupts" moderation
check "interrupts adapt to the traffic" adaptive_moderation
check "odd MTUs" odd_mtus
largest=$(ip -d -j link show dev "$NEAR" | jq '.[0].max_mtu')
check "largest MTU" set_mtu "$largest"
check "TCP over IPv4, largest MTU" transfer $V4.2
check "UDP over IPv4, largest MTU" both_ways $V4.2 --udp --bitrate 40M --length 8000
check "VLAN" vlan
check "link follows the peer" link_follows_peer
if ethtool -l "$NEAR" > /dev/null 2>&1; then
    check "as many channels as CPUs" channels_are_cpus
    check "channels and rings change under traffic" change_under_traffic
else
    skip "as many channels as CPUs"
    skip "channels and rings change under traffic"
fi
if ethtool -S "$NEAR" | grep -q tx_packets_phy; then
    check "counters of both ports agree" counters_agree
else
    skip "counters of both ports agree"
fi
reload_under_traffic > /dev/null
report $? "unload under traffic, load again"
check "no failed command, no warning" no_complaints
exit $failed
