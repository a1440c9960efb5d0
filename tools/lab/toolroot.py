# SPDX-License-Identifier: GPL-2.0
"""The tool root: a Debian tree with every tool of the lab, and commands in it.

It is also the root file system of the guests, so what a guest needs is
installed here.
"""

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from paths import BUILD, CACHE, CARGO_TARGET, REPO, ROOT
from steps import Failure, need_space

SUITE = "trixie"
KERNEL_SOURCE = "linux-source-7.3"
PACKAGES = {
    # kernel and modules
    "build-essential", "flex", "bison", "bc", "libssl-dev", "libelf-dev", "libdw-dev", "pahole", "kmod", "cpio",
    "rsync", "xz-utils", "zstd", "python3", "clang", "lld", "llvm", "libclang-dev", "bindgen", "rustc", "rust-src",
    "rustfmt", "rust-clippy", "cargo", "ccache", "git", "patch", KERNEL_SOURCE,
    # guests
    "qemu-system-x86", "busybox-static", "udev", "procps", "util-linux", "iproute2", "iputils-ping", "ethtool",
    "nvme-cli", "fio", "iperf3", "netperf", "socat", "tcpdump", "tshark", "pciutils", "psmisc", "strace", "e2fsprogs", "jq",
    "netsniff-ng", "openssh-server", "python3-yaml", "python3-jsonschema",
    # checks
    "shellcheck", "codespell", "python3-venv", "ca-certificates",
    # plots
    "gnuplot-nox",
}
# What backports must come from as one: libelf-dev of trixie does not go with libelf1 of backports.
PREFERENCES = """Package: src:linux src:qemu src:elfutils src:dwarves linux-source-7.3 qemu-* libelf* libdw* libasm* elfutils pahole seabios
Pin: release n=trixie-backports
Pin-Priority: 990
"""
# Mount points for the guest, which sees the root read-only.
DIRECTORIES = ("share", "etc/nvme", "repo", "kernel", "ccache")

# Settings of the host's own clients that commands in the root honour as well.
PASSED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL",
          "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_DISABLE_PIP_VERSION_CHECK")


def namespace():
    """The command prefix that gives root's view of mounts: real root, or root of a user namespace."""
    # Whatever runs there ends with the process that started it.
    argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    if os.geteuid():
        argv += ["--user", "--map-auto", "--map-root-user"]
    return argv


def check_namespace():
    """Say what is missing if this user cannot have its own mounts."""
    probe = subprocess.run([*namespace(), "true"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return
    reason = probe.stderr.strip().split("\n")[-1]
    if os.geteuid():
        raise Failure(
            f"This user may not create user namespaces here ({reason}): run make as root or with sudo, "
            "or allow them (package uidmap, a line for the user in /etc/subuid and /etc/subgid, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0)."
        )
    raise Failure(f"root may not create mount namespaces here ({reason}): the container needs CAP_SYS_ADMIN.")


def wanted():
    """What the root is made from, one line each. A root that has more will do."""
    recipe = hashlib.sha256(PREFERENCES.encode()).hexdigest()[:16]
    return {f"package {name}" for name in PACKAGES} | {f"suite {SUITE}", f"preferences {recipe}"}


def is_current(root=ROOT):
    stamp = root / "etc/ulp-ddp-root"
    return stamp.exists() and wanted() <= set(stamp.read_text().split("\n"))


def mirror():
    """The mirror that the host's own apt uses, if it is one of Debian; else mmdebstrap's default."""
    if not shutil.which("apt-get"):
        return []
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout
    for line in listing.split("\n"):
        label, _, uri = line.partition("|")
        if label == "Debian" and uri:
            return [uri]
    return []


# What mmdebstrap and apt print, and what it means for the user.
REASONS = (
    ("Unable to locate package " + KERNEL_SOURCE, f"The mirror has no {KERNEL_SOURCE} any more: move kernel.pin to a kernel it has."),
    ("Unable to locate package", "The mirror lacks a package of the tool root (see the log): the suite changed, adapt tools/lab/toolroot.py."),
    ("No space left on device", "The disk ran full: make room, or set ULP_DDP_CACHE to a directory on a larger disk."),
    ("NO_PUBKEY", "apt does not know the key of the Debian archive: update the package debian-archive-keyring."),
    ("Could not resolve", "The Debian mirror cannot be reached (no such host): check the network and the mirror in apt's own sources."),
    ("Could not connect", "The Debian mirror cannot be reached (no connection): check the network and apt's proxy settings."),
    ("Failed to fetch", "The Debian mirror did not deliver a file (see the log): check the network and try again."),
)


@contextmanager
def locked(name):
    """One process at a time makes what several checkouts share."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create(step):
    """Make the root, unless it is there; under a temporary name until it is complete."""
    if is_current():
        step.up_to_date()
        return
    check_namespace()
    with locked("root"):
        if is_current():
            step.up_to_date()
            return
        need_space(4, "The tool root")
        fresh = CACHE / "root.new"
        remove(fresh)
        with tempfile.TemporaryDirectory(prefix="ulp-ddp-") as tmp:
            preferences = Path(tmp) / "preferences"
            preferences.write_text(PREFERENCES)
            # mmdebstrap has written the sources by the time of this hook; the other suite is on the same mirror.
            hook = (
                f'cp {shlex.quote(str(preferences))} "$1/etc/apt/preferences.d/backports" && '
                f'for f in "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*.list; do '
                f'[ -f "$f" ] && sed -n "s/ {SUITE} / {SUITE}-backports /p" "$f"; done > "$1/etc/apt/sources.list.d/backports.list"; '
                f'test -s "$1/etc/apt/sources.list.d/backports.list"'
            )
            argv = [
                *namespace(), "mmdebstrap", "--mode=root", "--variant=apt", "--components=main", "--architectures=amd64",
                f"--include={','.join(sorted(PACKAGES))}", f"--setup-hook={hook}", SUITE, str(fresh), *mirror(),
            ]
            packages = 0

            def progress(line):
                nonlocal packages
                if line.startswith("Setting up "):
                    packages += 1
                    step.progress = f"{packages} packages"

            os.chmod(tmp, 0o755)
            os.chmod(preferences, 0o644)
            status = step.capture(lambda **pipes: subprocess.Popen(argv, **pipes), progress)
        if status:
            remove(fresh)
            output = step.output()
            raise Failure(next((text for sign, text in REASONS if sign in output), "mmdebstrap could not make the tool root."))
        devices = subprocess.run([*namespace(), "chroot", fresh, "qemu-system-x86_64", "-device", "help"], capture_output=True, text=True, check=False)
        if '"vfio-user-pci"' not in devices.stdout:
            remove(fresh)
            raise Failure("The QEMU that the mirror offers has no vfio-user-pci, which the device model needs (QEMU 10.1 or later, as in trixie-backports).")
        for name in DIRECTORIES:
            subprocess.run([*namespace(), "mkdir", "-p", fresh / name], check=True)
        stamp = "\n".join(sorted(wanted())) + "\n"
        subprocess.run([*namespace(), "tee", fresh / "etc/ulp-ddp-root"], input=stamp, text=True, check=True, stdout=subprocess.DEVNULL)
        if ROOT.exists():
            remove(CACHE / "root.old")
            os.rename(ROOT, CACHE / "root.old")
        os.rename(fresh, ROOT)
        remove(CACHE / "root.old")


def remove(path):
    """Remove a tree whose files may belong to mapped users."""
    if path.exists():
        subprocess.run([*namespace(), "rm", "-rf", "--one-file-system", path], check=True)


def command_line(command, binds=()):
    """Arguments and environment of a shell command in the root: /repo is the checkout, /kernel the build."""
    for path in (BUILD, CARGO_TARGET, CACHE / "ccache", CACHE / "cargo"):
        path.mkdir(parents=True, exist_ok=True)
    host_cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    for name in ("config.toml", "config"):
        if (host_cargo / name).exists():
            shutil.copyfile(host_cargo / name, CACHE / "cargo" / name)
    env = dict(os.environ, ROOT=str(ROOT), REPO=str(REPO), BUILD=str(BUILD), CARGO_TARGET=str(CARGO_TARGET), CACHE=str(CACHE))
    flat = [str(part) for pair in binds for part in pair]
    if not isinstance(command, str):
        command = shlex.join(command)
    env["PASS"] = "\n".join(f"{name}={os.environ[name]}" for name in PASSED if os.environ.get(name))
    return [*namespace(), "bash", str(REPO / "tools/lab/enter.sh"), *flat, "--", command], env


def run(command, binds=(), check=True, **kwargs):
    """Run a shell command in the tool root."""
    argv, env = command_line(command, binds)
    return subprocess.run(argv, env=env, check=check, **kwargs)


def start(command, binds=(), **kwargs):
    """Start a shell command in the tool root."""
    argv, env = command_line(command, binds)
    return subprocess.Popen(argv, env=env, **kwargs)
