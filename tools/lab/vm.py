# SPDX-License-Identifier: GPL-2.0
"""Boot the built kernel in QEMU with the tool root as its read-only root."""

import argparse
import os
import tempfile
from pathlib import Path

import toolroot
from paths import BUILD, MODULES

# Inside the tool root. The guest's root file system is the tool root itself,
# seen without the mounts of this namespace, plus the checkout in /opt/repo
# and the kernel's modules.
LAUNCH = r"""
set -e
cd /run/lab
view=/mnt
mount --bind / $view
mount -t tmpfs tmpfs $view/opt; mkdir -p $view/opt/repo $view/opt/kernel
mount --bind /repo $view/opt/repo
mount --bind /kernel/tree $view/opt/kernel
if [ -d /kernel/modules/lib/modules ]; then mkdir -p /usr/lib/modules; mount --bind /kernel/modules/lib/modules $view/usr/lib/modules; fi
devices=()
if [ "$PORTS" -gt 0 ]; then
    sockets=()
    for ((i = 0; i < PORTS; i++)); do
        sockets+=(--port "/run/lab/nic$i.sock")
        devices+=(-device "{\"driver\":\"vfio-user-pci\",\"id\":\"nic$i\",\"bus\":\"pcie.0\",\"x-msg-timeout\":3600000,\"socket\":{\"type\":\"unix\",\"path\":\"/run/lab/nic$i.sock\"}}")
    done
    mkfifo ready
    /kernel/cargo/release/nicmodel "${sockets[@]}" $MODEL_ARGS > ready 2> model.log &
    model=$!
    if ! read -r -t 20 line < ready || [ "$line" != ready ]; then echo "the device model did not start:"; cat model.log; exit 1; fi
fi
share=()
if [ -d /share ]; then share=(-fsdev local,id=share,path=/share,security_model=none -device virtio-9p-pci,fsdev=share,mount_tag=share); fi
status=0
timeout --foreground "$TIMEOUT" qemu-system-x86_64 -M q35 -accel "$ACCEL" -cpu max -smp "$SMP" -m "$MEM" \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot \
    -object "memory-backend-memfd,id=ram,size=$MEM,share=on" -machine memory-backend=ram \
    -fsdev local,id=root,path=$view,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev local,id=lab,path=/run/lab,security_model=none -device virtio-9p-pci,fsdev=lab,mount_tag=lab \
    "${share[@]}" -device virtio-rng-pci "${devices[@]}" \
    -kernel /kernel/obj/arch/x86/boot/bzImage \
    -append "console=ttyS0 root=root rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=262144,cache=loose ro init=/opt/repo/tools/lab/guest/init panic=-1 init_on_alloc=1 quiet loglevel=5 $APPEND" || status=$?
if [ -n "${model:-}" ]; then kill "$model" 2>/dev/null || true; wait "$model" 2>/dev/null || true; fi
exit $status
"""


def boot(run=None, share=None, ports=2, smp=2, mem="2G", timeout=600, append="", stdout=None, model_args="", accel=None):
    """Boot, run a command as root (or a shell if none), return its exit status."""
    with tempfile.TemporaryDirectory(prefix="vm-", dir=BUILD) as tmp:
        lab = Path(tmp)
        if run is not None:
            (lab / "run").write_text(run + "\n")
        binds = [(lab, "/run/lab")]
        if share:
            binds.append((Path(share).resolve(), "/share"))
        settings = {
            "PORTS": ports, "SMP": smp, "MEM": mem, "TIMEOUT": timeout, "APPEND": append, "MODEL_ARGS": model_args,
            "ACCEL": accel or os.environ.get("ACCEL") or "tcg,thread=multi",
        }
        exports = "".join(f"export {key}='{value}'\n" for key, value in settings.items())
        status = toolroot.run(exports + LAUNCH, binds, check=False, stdout=stdout).returncode
        log = lab / "model.log"
        if log.exists():
            (BUILD / "model.log").write_bytes(log.read_bytes())
        if status:
            return status
        if run is None:
            return 0
        result = lab / "status"
        return int(result.read_text()) if result.exists() else 125


def main(argv):
    parser = argparse.ArgumentParser(prog="vm")
    parser.add_argument("--run")
    parser.add_argument("--share")
    parser.add_argument("--ports", type=int, default=2)
    parser.add_argument("--smp", type=int, default=2)
    parser.add_argument("--mem", default="2G")
    parser.add_argument("--timeout", type=int, default=600)
    parser.add_argument("--append", default="")
    parser.add_argument("--model-args", default="")
    args = parser.parse_args(argv)
    if not (MODULES / "lib").is_dir():
        raise SystemExit("no kernel has been built yet: make kernel")
    return boot(args.run, args.share, args.ports, args.smp, args.mem, args.timeout, args.append, model_args=args.model_args)
