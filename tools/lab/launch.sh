#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Inside the tool root: start the device model and QEMU, as vm.py says in the
# environment. The guest's root file system is the tool root itself, seen
# without the mounts of this namespace, plus the checkout in /opt/repo, the
# kernel tree in /opt/kernel, its built selftests in /opt/selftests and the
# kernel's modules.
#
# With VMS=2 a second VM, the target, has half of the ports and the disks, and a
# network of its own to the first one for ssh. It lives as long as the first.
set -e
cd /run/lab
export TMPDIR=/run/lab
view=/mnt
mount --bind / $view
mount -t tmpfs tmpfs $view/opt; mkdir -p $view/opt/repo $view/opt/kernel
mount --bind /repo $view/opt/repo
mount --bind /kernel/tree $view/opt/kernel
if [ -d /selftests ]; then mkdir $view/opt/selftests; mount --bind /selftests $view/opt/selftests; fi
if [ -d /kernel/modules/lib/modules ]; then mkdir -p /usr/lib/modules; mount --bind /kernel/modules/lib/modules $view/usr/lib/modules; fi
devices=()
target=()
if [ "$PORTS" -gt 0 ]; then
    sockets=()
    for ((i = 0; i < PORTS; i++)); do
        sockets+=(--port "/run/lab/nic$i.sock")
        nic=(-device "{\"driver\":\"vfio-user-pci\",\"id\":\"nic$i\",\"bus\":\"pcie.0\",\"x-msg-timeout\":3600000,\"socket\":{\"type\":\"unix\",\"path\":\"/run/lab/nic$i.sock\"}}")
        if [ "$VMS" = 2 ] && [ $((i * 2)) -ge "$PORTS" ]; then target+=("${nic[@]}"); else devices+=("${nic[@]}"); fi
    done
    mkfifo ready
    # shellcheck disable=SC2086 # several arguments
    /kernel/cargo/release/nicmodel "${sockets[@]}" $MODEL_ARGS > ready 2> model.log &
    model=$!
    if ! read -r -t 20 line < ready || [ "$line" != ready ]; then echo "the device model did not start:"; cat model.log; exit 1; fi
fi
if [ -d /share ] && [ -n "$SHARE" ]; then
    devices+=(-fsdev "local,id=share,path=/share,security_model=none" -device "virtio-9p-pci,fsdev=share,mount_tag=share")
fi
for disk in $DISKS; do
    # A guest's writes last as long as the guest.
    drive=(-drive "file=$disk,if=none,id=$(basename "$disk" .img),format=raw,snapshot=on" -device "virtio-blk-pci,drive=$(basename "$disk" .img)")
    if [ "$VMS" = 2 ]; then target+=("${drive[@]}"); else devices+=("${drive[@]}"); fi
done
case $CONSOLE in
shared) devices+=(-serial stdio) ;;
shell) devices+=(-chardev "stdio,id=console,signal=off,mux=on,logfile=/run/lab/console.log" -serial chardev:console) ;;
split)
    devices+=(-chardev "file,id=console,path=/run/lab/console.log" -serial chardev:console
        -device virtio-serial-pci -chardev "stdio,id=output" -device "virtserialport,chardev=output,name=output")
    # QEMU closes the port when its standard input ends; this one never does.
    mkfifo input
    exec 0<> input
    ;;
esac
# vm NAME DIRECTORY CPUS DEVICE...: the command line of a VM, in the array qemu.
# tsc=reliable: while time is still made of jiffies, the clocksource watchdog waits without a limit for an interrupt of
# another CPU, and a stop_machine() that waits for both hangs the boot, which TCG with many CPUs makes likely.
# QEMU's TSCs are one clock, there is nothing to watch.
vm() {
    local name=$1 directory=$2 cpus=$3
    shift 3
    # shellcheck disable=SC2054 # the commas are QEMU's
    qemu=(qemu-system-x86_64 -name "$name,debug-threads=on" -pidfile "$directory/qemu.pid" -M q35 -accel "$ACCEL" -cpu max -smp "$cpus" -m "$MEM"
        -nodefaults -no-user-config -display none -no-reboot
        -object "memory-backend-memfd,id=ram,size=$MEM,share=on" -machine memory-backend=ram
        -fsdev "local,id=root,path=$view,security_model=none,readonly=on,multidevs=remap"
        -device virtio-9p-pci,fsdev=root,mount_tag=root
        -fsdev "local,id=lab,path=$directory,security_model=none" -device virtio-9p-pci,fsdev=lab,mount_tag=lab
        -device virtio-rng-pci "$@"
        -kernel /kernel/obj/arch/x86/boot/bzImage
        -append "console=ttyS0 root=root rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose ro init=/opt/repo/tools/lab/guest/init panic=-1 oops=panic init_on_alloc=1 no_timer_check tsc=reliable quiet loglevel=5 $APPEND")
}
# link HERE THERE NUMBER: the end of the network for ssh, in the array management.
link() {
    management=(-netdev "dgram,id=management,local.type=unix,local.path=/run/lab/$1.sock,remote.type=unix,remote.path=/run/lab/$2.sock"
        -device "virtio-net-pci,netdev=management,mac=02:00:00:00:ee:0$3")
}
if [ "$VMS" = 2 ]; then
    link target initiator 2
    vm target /run/lab/target "$TARGET_SMP" "${target[@]}" "${management[@]}" \
        -chardev file,id=console,path=/run/lab/target/console.log,append=on -serial chardev:console
    {
        "${qemu[@]}" < /dev/null >> target/console.log 2>&1 || true
        # Before its time: what the first one does has no meaning any more.
        if [ ! -e ended ]; then
            touch target/ended
            kill "$(cat qemu.pid)" 2> /dev/null || true
        fi
    } &
    link initiator target 1
    vm initiator /run/lab "$SMP" "${devices[@]}" "${management[@]}"
else
    vm lab /run/lab "$SMP" "${devices[@]}"
fi
status=0
timeout --foreground "$TIMEOUT" "${qemu[@]}" || status=$?
touch ended
if [ "$VMS" = 2 ]; then kill "$(cat target/qemu.pid)" 2> /dev/null || true; fi
if [ -n "${model:-}" ]; then kill "$model" 2>/dev/null || true; fi
wait
exit $status
