# SPDX-License-Identifier: GPL-2.0
"""What loads our code, on a kernel that looks for mistakes: it may report none.

Such a kernel also scans for leaks when a guest's commands have ended
(guest/init), and what it finds is in its log, which every check here reads.
"""

import re
import traceback

import check
import selftests
import vm
from demo import IMAGE, SUMS
from paths import DEBUG
from steps import Failure

# Seconds for each of the kernel's own tests: on such a kernel not enough for all cases of the longest.
TEST_SECONDS = 180
# Such a kernel is too slow under TCG for these: one wants packets of 10 programs within 4 seconds, the other 4000 packets in one. To
# have failed for that is an end, too. What the other is about is also a case of mlx5_rs_faults.
TOO_SLOW = ("hw/toeplitz", "hw/pp_alloc_fail")

# The demo's path with fewer files.
DEMO = """
set -e
for digests in "" "--hdr-digest --data-digest"; do
    for offload in on off; do
        ethtool -K $NETIF ulp-ddp $offload
        nvme connect -t tcp -a $NVME_TRADDR -s $NVME_TRSVCID -n $NVME_SUBNQN $digests
        until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
        mount /dev/nvme0n1 /run/mnt
        (cd /run/mnt && sha256sum --quiet -c /run/lab/sha256sums)
        fio --name=io --filename=/run/mnt/fio --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-256k --size=8M \
            --verify=crc32c --verify_fatal=1 --output=/dev/null
        umount /run/mnt
        nvme disconnect -n $NVME_SUBNQN
    done
done
"""

# The driver goes while a connection that it serves reads, and comes back.
RELOAD = """
set -e
for ((round = 0; round < 5; round++)); do
    nvme connect -t tcp -a $NVME_TRADDR -s $NVME_TRSVCID -n $NVME_SUBNQN --data-digest
    until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
    fio --name=io --filename=/dev/nvme0n1 --direct=1 --ioengine=libaio --iodepth=16 --rw=randread --bs=128k --time_based --runtime=600 \
        --output=/dev/null &
    reader=$!
    until [ "$(awk '{ print $3 }' /sys/block/nvme0n1/stat)" -gt 10000 ]; do sleep 0.1; done
    modprobe -r mlx5_rs
    nvme disconnect -n $NVME_SUBNQN
    wait $reader || true
    modprobe mlx5_rs
    ports=(/sys/bus/pci/drivers/mlx5_rs/*/net/*)
    near=$(basename ${ports[0]})
    far=$(basename ${ports[1]})
    ip link set $far netns target
    ip addr add $LOCAL_V4/24 dev $near
    ip -n target addr add $REMOTE_V4/24 dev $far
    ip link set $near up
    ip -n target link set $far up
    ping -q -c 1 -W 1 -w 20 $REMOTE_V4
done
modprobe -r nvme-tcp
modprobe -r mlx5_rs
"""


def clean_run(step, results, name, guest):
    """The guest's commands succeed and its kernel has nothing to report; returns what they printed."""
    outcome, output = check.in_vm(step, guest)
    good = outcome.ended and outcome.status == 0
    results.add(name, good, output[-3000:] if outcome.ended else vm.explain(outcome, guest.timeout))
    complaints = outcome.complaints()
    results.add(f"{name}: the kernel does not complain", not complaints, "\n".join(complaints))
    return output


def demo(step, results):
    # Every eighth file of the demo, without the large one.
    sums = [line for line in SUMS.read_text().split("\n") if line and not line.endswith("random.bin")][::8]
    guest = vm.Guest(
        run=DEMO, timeout=600, topology={"DRIVER": "mlx5_rs", "HOST": "rs", "TARGET_DEVICE": "/dev/vda"}, disks=(IMAGE,),
        files={"sha256sums": "\n".join(sums) + "\n"},
    )
    clean_run(step, results, "demo", guest)


def reload(step, results):
    clean_run(step, results, "reload", vm.Guest(run=RELOAD, timeout=200, topology={"DRIVER": "mlx5_rs", "HOST": "rs"}))


def driver_tests(step, results):
    """The kernel's own tests in one VM, as far as they come in their time; what passes is for make selftests to judge.

    Each test's name is in the kernel's log before what the kernel says meanwhile.
    """
    # An interrupt, unlike a signal to terminate, ends the whole test and not only one of its cases.
    limit = f"timeout -s INT -k 60 {TEST_SECONDS} "
    # Some take the interface down, with which its addresses of version 6 go.
    again = "ip link set $NETIF up; ip addr replace $LOCAL_V4/24 dev $NETIF; ip addr replace $LOCAL_V6/64 dev $NETIF nodad"
    run = "".join(f"echo 'selftest {test}' | tee /dev/kmsg\n{again}\n{selftests.command(test, limit)}\n" for test in selftests.TESTS)
    guest = vm.Guest(run=f"{run}true", smp=selftests.CPUS, timeout=2 * TEST_SECONDS * len(selftests.TESTS), topology={"DRIVER": "mlx5_rs", "HOST": "rs"})
    output = clean_run(step, results, "the kernel's selftests", guest)
    for part in output.split("selftest ")[1:]:
        test = part.split("\n")[0]
        end = r"^(not )?ok " if test in TOO_SLOW else r"^ok "
        results.add(f"{test}: a case came to its end", re.search(end, part, re.M), part[-2000:])


def run(prepare):
    """Returns the exit status."""
    if not DEBUG:
        raise Failure("check-debug needs a build of its own: make check-debug names it.")
    results = check.Results()
    checks = (("KUnit", check.kunit), ("kselftests", check.kselftests), ("demo", demo), ("driver selftests", driver_tests), ("reload", reload))
    try:
        runner = prepare("tool root", "kernel source", "kernel tree", "device model", "selftests", "demo files", "kernel", more=len(checks))
        for title, function in checks:
            with runner.step(title) as step:
                before = results.passed, results.failed
                function(step, results)
                step.note = f"{results.passed - before[0]} passed, {results.failed - before[1]} failed"
    except Failure as failure:
        results.add("set-up", False, str(failure))
    except Exception:  # as in check.run()
        results.add("the lab itself", False, traceback.format_exc())
    print(f"{results.passed} passed, {results.failed} failed")
    return 1 if results.failed or not results.passed else 0
