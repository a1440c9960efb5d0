#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A network driver on a device that breaks, as the plan faults.toml says:
#   FAULTS=tools/model/judge/faults.toml python3 tools/lab vm --ports 2 --run 'bash /opt/repo/tools/model/judge/faults.sh'
# That the stock driver gets over each fault shows that the model breaks as a
# real device does. Prints KTAP; the status is that of the worst test.

# shellcheck disable=SC2317 # functions are called through check

DRIVER=${DRIVER:-mlx5_core}
# shellcheck source=tools/model/judge/lib.bash
. "$(dirname "$0")/lib.bash"

# Lets a fault happen: its rule waits for a datagram to this port.
fault() {
    echo > "/dev/udp/$V4.2/$1"
}

pings() {
    ping -q -c "$1" -i 0.1 -W 1 "$V4.2" > /dev/null
}

# Both ends work again. After a change of the link that takes as long as the core delays its events.
answers() {
    wait_for pings 1 && pings 5
}

# Traffic with the fault in it, and without once it is over.
gets_over() {
    fault "$1" && { pings 10 || true; } && answers
}

recovers() {
    gets_over "$1" && [ "$(ethtool -S "$NEAR" | awk -v name="$2:" '$1 == name { print $2 }')" -ge 1 ]
}

flaps() {
    fault 7003 && wait_for carrier_is 0 && wait_for carrier_is 1 && answers
}

# The change is refused, and nothing is different.
refuses() {
    local before
    before=$(ethtool -g "$NEAR")
    fault 7005 && ! ethtool -G "$NEAR" rx 256 && [ "$(ethtool -g "$NEAR")" = "$before" ] && pings 5
}

waits() {
    local start=$EPOCHREALTIME
    fault 7006 && ethtool -G "$NEAR" rx 256 && [ $((${EPOCHREALTIME/./} - ${start/./})) -gt 1400000 ] && answers
}

# TCP makes good what the wire does; a wrong checksum is seen.
retransmits() {
    local errors
    fault 7007 && transfer "$V4.2" || return 1
    errors=$(nstat -asz TcpInCsumErrors | awk '/TcpInCsumErrors/ { print $2 }')
    errors=$((errors + $(in_peer nstat -asz TcpInCsumErrors | awk '/TcpInCsumErrors/ { print $2 }')))
    echo "wrong checksums: $errors"
    [ "$errors" -gt 0 ]
}

# The driver tears its interface down and makes it anew.
is_reborn() {
    local device old
    device=$(readlink -f "/sys/class/net/$NEAR/device")
    old=$(cat "/sys/class/net/$NEAR/ifindex")
    fault 7008
    reborn() {
        local new
        NEAR=$(basename "$device"/net/*)
        # There is none for a while, and the old one may go between two looks at it.
        new=$(cat "/sys/class/net/$NEAR/ifindex" 2> /dev/null) && [ "$new" != "$old" ]
    }
    wait_for reborn && ip addr add "$V4.1/24" dev "$NEAR" && ip link set "$NEAR" up && wait_for carrier_is 1 && answers
}

# The driver notices, lets go of the device, and the other port goes on.
is_removed() {
    local device
    device=$(readlink -f "/sys/class/net/$NEAR/device")
    fault 7009
    far_is_down() {
        [ "$(in_peer cat "/sys/class/net/$FAR/carrier")" = 0 ]
    }
    wait_for far_is_down && echo 1 > "$device/remove" && [ ! -d "$device" ] && in_peer ethtool -S "$FAR" > /dev/null
}

echo "KTAP version 1"
echo "1..11"
ip netns add "$PEER"
ip -n "$PEER" link set lo up
load
report $? "probe"
check "link up" open
check "a failed send" recovers 7001 tx_recover
check "a failed receive" recovers 7002 rx_recover
check "link flap" flaps
check "a late interrupt" gets_over 7004
check "a failed command" refuses
check "a slow command" waits
check "a bad wire" retransmits
check "fatal health" is_reborn
check "surprise removal" is_removed
exit "$failed"
