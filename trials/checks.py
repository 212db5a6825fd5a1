"""What is tried, in this order: each function is one check, whose docstring says what must be so.

A check raises `Failed` if it is not. Later ones go on from what earlier ones have left.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Final

from trials.commands import require
from trials.image import build
from trials.machines import Machine
from trials.site import AS_SERVICE, BATCH_CONFIG, CONFIG, INBOX, KEY, OUTBOX, Site, state_of

NAS_USER: Final = "1026:100"
"""User and group of a container, as the page has them."""

NEW_KEY: Final = "/etc/realize/new.key"

LARGE_BYTES: Final = 24 << 20
WOULD_RESTART_S: Final = 8.0
"""Longer than `RestartSec` of the unit."""

NOT_OURS: Final = ("/proc", "/sys", "/root", "/var/log/journal", "/var/cache/man", "/srv/realize")
"""Where something of Realize may be after a purge: what others keep, and files that were moved."""

MOST_EXPOSED: Final = 30
"""How much of a service may be exposed, in tenths, by the measure of `systemd-analyze security`."""

Check = Callable[[Site], None]


def apt_installs_all_of_it(site: Site) -> None:
    """`apt install ./realize_*.deb` alone brings user, directories, key, commands and units, and enables nothing."""
    for machine in site.machines:
        site.install(machine, site.package)
        modes = machine.output("stat", "--format=%a %U:%G", "/etc/realize", KEY, CONFIG, INBOX).splitlines()
        require(
            modes == ["750 root:realize", "600 realize:realize", "644 root:root", "2770 realize:realize"],
            f"modes and owners are {modes}",
        )
        require(machine.run("systemctl", "is-enabled", "realized").stdout == "disabled\n", "realized is enabled")
        machine.output("realize", "--version")
        machine.output("realized", "--help")
        require(not machine.output("dpkg", "--verify", "realize"), "dpkg finds changed files")


def keys_are_of_the_machine(site: Site) -> None:
    """Each machine has made a key of its own."""
    keys = {machine.output("sha256sum", KEY) for machine in site.machines}
    require(len(keys) == 2, "both machines have the same key")


def the_daemon_starts_at_once(site: Site) -> None:
    """`systemctl enable --now realized` is all that is left to do; root asks it how it fares without any key."""
    for machine in site.machines:
        machine.output("systemctl", "enable", "--now", "realized")
        require(state_of(machine, "realized") == "active", "the daemon is not active")
        machine.wait("realize status")
        machine.output("realized", "--check-config")
        machine.shell("cd /root; realized 2>&1 | grep -q 'Address already in use'")


def a_peer_is_let_in_by_its_lines(site: Site) -> None:
    """What each machine prints of its key is pasted into the configuration of the other one, and reloaded."""
    show = (*AS_SERVICE, "realize", "keygen", "--show", KEY)
    for_daemon, _ = public_lines(site.camera.output(*show))
    _, for_command = public_lines(site.nas.output(*show))
    for_command = re.sub(r'address = ".*"', f'address = "{site.nas.address}:9771"', for_command)
    for machine, config, lines in ((site.nas, CONFIG, for_daemon), (site.camera, BATCH_CONFIG, for_command)):
        path = machine.path(config)
        path.write_text(f"{path.read_text()}\n{lines}")
    site.nas.output("systemctl", "reload", "realized")
    site.camera.output(*AS_SERVICE, "realize", "check", "--config", BATCH_CONFIG, "nas::inbox")


def public_lines(printed: str) -> tuple[str, str]:
    """What `realize keygen` has printed for a daemon elsewhere, and for the command of another machine."""
    tables = re.findall(r"(?m)^\[peers\..*\n(?:\w.*\n?)+", printed)
    require(len(tables) == 2, f"keygen does not print two tables: {printed}")
    return tables[0], tables[1]


def files_are_moved(site: Site) -> None:
    """A batch job of systemd moves files from one machine to the other: they are there, and no longer here."""
    digests = {name: site.offer(name, size, size) for name, size in (("small", 10_000), ("large", LARGE_BYTES))}
    done = site.move()
    require(done.returncode == 0, f"the batch job failed: {done.stderr}")
    require(not site.left(), f"these files are still at the source: {site.left()}")
    for name, digest in digests.items():
        require(site.arrived(name) == digest, f"{name} has other content")


def no_record_is_lost(site: Site) -> None:
    """The journal of both machines has an audit record for each of very many small files, and suppresses none."""
    site.offer_many(site.files)
    before = [journal(machine) for machine in site.machines]
    done = site.move()
    require(done.returncode == 0, f"the batch job failed: {done.stderr}")
    for machine, event, old in zip(site.machines, ("file_moved", "file_committed"), before, strict=True):
        machine.output("journalctl", "--sync")
        text = journal(machine)[len(old) :]
        count = len(re.findall(rf"(?m)^{event} .*path=many/", text))
        require(count == site.files, f"the journal of {machine.name} has {count} records {event} of {site.files}")
        require("Suppressed" not in text, "the journal has suppressed messages")


def journal(machine: Machine) -> str:
    """All messages of the units of Realize, and of the journal about them."""
    return machine.output("journalctl", "--quiet", "--output=cat", "--no-pager", "--boot")


def its_log_file_is_rotated(site: Site) -> None:
    """With `logs.file`, the daemon writes where the package says, as it says, and logrotate takes it away."""
    log = "/var/log/realize/realized.log"
    with site.configured(site.nas, lambda text: f'{text}\n[logs]\nfile = "{log}"\nformat = "json"\n'):
        site.nas.output("systemctl", "restart", "realized")
        site.nas.wait(f'grep -q \'"event": *"listening"\' {log}')
        process = state_of(site.nas, "realized", "MainPID")
        site.nas.output("logrotate", "--force", "/etc/logrotate.d/realized")
        site.offer("rotated", 1000, 1)
        require(site.move().returncode == 0, "the batch job failed after the rotation")
        site.nas.wait(f'grep -q \'"path": *"rotated"\' {log}')
        site.nas.output("test", "-s", f"{log}.1")
        require(state_of(site.nas, "realized", "MainPID") == process, "the daemon was restarted")
    site.nas.output("systemctl", "restart", "realized")


def a_stopped_batch_job_is_inactive(site: Site) -> None:
    """`systemctl stop realize-move@x` ends a move in order: inactive, not failed, and the next run goes on there."""
    digest = site.offer("stopped", LARGE_BYTES, 2)
    site.job("slow", "--throttle 1M")
    site.camera.output("systemctl", "start", "--no-block", "realize-move@slow.service")
    site.nas.wait(f"ls -a {INBOX} | grep -q stopped")
    time.sleep(3)
    site.camera.output("systemctl", "stop", "realize-move@slow.service")
    require(state_of(site.camera, "realize-move@slow") == "inactive", "the stopped batch job is not inactive")
    require(site.left() == ["stopped"], "a file that was on its way is not at the source")
    require(site.move().returncode == 0, "the next run failed")
    require(site.arrived("stopped") == digest, "the file has other content")


def it_says_what_it_does(site: Site) -> None:
    """`systemctl status` shows what the daemon does in a sentence."""
    text = state_of(site.nas, "realized", "StatusText")
    require("1 director" in text, f"the status is {text!r}")


def a_wrong_configuration_fails_the_start(site: Site) -> None:
    """`systemctl start` fails for a wrong configuration, and systemd does not try again for ever."""
    site.nas.output("systemctl", "stop", "realized")
    with site.configured(site.nas, lambda text: f"nonsense = 1\n{text}"):
        done = site.nas.run("systemctl", "start", "realized")
        time.sleep(WOULD_RESTART_S)
        state, restarts = state_of(site.nas, "realized"), state_of(site.nas, "realized", "NRestarts")
        checked = site.nas.run("realized", "--check-config")
    site.nas.output("systemctl", "start", "realized")
    require(done.returncode != 0, "systemctl start returned 0")
    require((state, restarts) == ("failed", "0"), f"the unit is {state} after {restarts} restarts")
    require(checked.returncode != 0, "realized --check-config found nothing wrong")
    require("nonsense" in checked.stderr + checked.stdout, "realized --check-config does not name what is wrong")


def a_failed_reload_fails(site: Site) -> None:
    """`systemctl reload` fails for a wrong configuration, and the daemon goes on with the former one."""
    process = state_of(site.nas, "realized", "MainPID")
    with site.configured(site.nas, lambda text: f"nonsense = 1\n{text}"):
        wrong = site.nas.run("systemctl", "reload", "realized")
        state = state_of(site.nas, "realized")
    site.nas.output("systemctl", "reload", "realized")
    require(wrong.returncode != 0, "systemctl reload returned 0 for a wrong configuration")
    require(state == "active", f"the daemon is {state}")
    require(state_of(site.nas, "realized", "MainPID") == process, "the daemon was restarted")


def a_missing_directory_keeps_no_other_down(site: Site) -> None:
    """A directory that is not there is said, the others are served, and it is taken up when it comes."""
    later = "/srv/realize/later"

    def with_later(text: str) -> str:
        return text.replace('["write"]', '["write"], later = ["write"]') + f'\n[dirs.later]\npath = "{later}"\n'

    try:
        with site.configured(site.nas, with_later):
            site.nas.output("systemctl", "restart", "realized")
            site.nas.wait("journalctl --unit=realized | grep -q directory_absent")
            site.offer("besides", 1000, 3)
            require(site.move().returncode == 0, "a move into the other directory failed")
            site.nas.shell(f"install -d -o realize -g realize {later}")
            site.camera.wait(" ".join((*AS_SERVICE, "realize", "check", "--config", BATCH_CONFIG, "nas::later")))
    finally:
        site.nas.output("systemctl", "restart", "realized")


def both_ends_change_their_keys(site: Site) -> None:
    """First the daemon, then the machine that moves: files go over before, between and after; then a former key is out.

    `realize check` tells of the new key of the daemon.
    """
    nas, camera = site.nas, site.camera
    (old_nas, new_nas), (old_camera, new_camera) = (_old_and_new_key(machine) for machine in (nas, camera))
    two, one = f'key = "{NEW_KEY}"\nformer_keys = ["realized.key"]', f'key = "{NEW_KEY}"'
    own, pinned = 'key = "realized.key"', f'key = "{old_nas}"'
    check = (*AS_SERVICE, "realize", "check", "--config", BATCH_CONFIG, "nas::inbox")
    with site.configured(nas, lambda text: text.replace(own, two)), site.configured(camera, str, BATCH_CONFIG):
        nas.output("systemctl", "restart", "realized")
        _goes_over(site, "known by its former key")
        require(new_nas in camera.run(*check).stdout, "realize check does not tell of the new key")
        site.change(camera, BATCH_CONFIG, pinned, f'key = "{new_nas}"\norigin = "{old_nas}"')
        site.change(nas, CONFIG, two, one)
        nas.output("systemctl", "restart", "realized")
        _goes_over(site, "known by its new key")
        site.change(camera, BATCH_CONFIG, own, two)
        _goes_over(site, "of a machine with two keys")
        both = f'keys = ["{old_camera}", "{new_camera}"]'
        site.change(nas, CONFIG, f'key = "{old_camera}"', both)
        nas.output("systemctl", "reload", "realized")
        _goes_over(site, "to a daemon that knows both")
        site.change(nas, CONFIG, both, f'key = "{new_camera}"\norigin = "{old_camera}"')
        nas.output("systemctl", "reload", "realized")
        _goes_over(site, "of the new key alone")
        site.change(camera, BATCH_CONFIG, two, own)
        digest = site.offer("of the former key", 1000, 6)
        require(site.move().returncode != 0 and site.left() == ["of the former key"], "a former key was let in")
    nas.output("systemctl", "restart", "realized")
    require(site.move().returncode == 0, "a move with the first keys failed")
    require(site.arrived("of the former key") == digest, "the file has other content")
    for machine in site.machines:
        machine.output("rm", NEW_KEY)


def _old_and_new_key(machine: Machine) -> tuple[str, str]:
    """The public key of a machine, and that of another one, which is made for it."""
    machine.output("realize", "keygen", NEW_KEY)
    machine.output("chown", "realize:realize", NEW_KEY)
    old, new = (
        machine.output(*AS_SERVICE, "realize", "keygen", "--show", path).splitlines()[1] for path in (KEY, NEW_KEY)
    )
    return old, new


def _goes_over(site: Site, name: str) -> None:
    digest = site.offer(name, 10_000, len(name))
    done = site.move()
    require(done.returncode == 0 and not site.left(), f"the move of {name!r} failed: {done.stderr}")
    require(site.arrived(name) == digest, f"{name!r} has other content")


def an_upgrade_loses_nothing(site: Site) -> None:
    """While a file is on its way its receiver is upgraded: configuration and key stay, the move comes back and ends."""
    before = site.nas.output("sha256sum", CONFIG, KEY)
    process = state_of(site.nas, "realized", "MainPID")
    digest = _on_its_way(site, "upgraded", 4)
    site.install(site.nas, site.later)
    require(state_of(site.nas, "realized") == "active", "the daemon does not run after the upgrade")
    require(state_of(site.nas, "realized", "MainPID") != process, "the daemon was not restarted")
    require(site.nas.output("sha256sum", CONFIG, KEY) == before, "the upgrade changed configuration or key")
    require("upgraded" in site.left(), "the file arrived before the upgrade was over, so nothing was tried")
    site.camera.wait(
        "systemctl show --property=ActiveState --value realize-move@slow | grep -qv activating", within_s=120
    )
    require(state_of(site.camera, "realize-move@slow", "Result") == "success", "the move failed")
    require(site.arrived("upgraded") == digest, "the file has other content")
    require(not site.left(), "the file is still at the source")


def an_upgrade_ends_batch_jobs_in_order(site: Site) -> None:
    """While a batch job sends a file its machine is upgraded: it stops in order, and the next one ends the move."""
    digest = _on_its_way(site, "sender", 5)
    site.install(site.camera, site.later)
    require(state_of(site.camera, "realize-move@slow") == "inactive", "the batch job is not inactive")
    require(site.left() == ["sender"], "the file is not at the source")
    require(site.move().returncode == 0, "the next run failed")
    require(site.arrived("sender") == digest, "the file has other content")


def _on_its_way(site: Site, name: str, seed: int) -> str:
    """Have the batch job `slow` send a large file, of which a part is there then; its digest."""
    digest = site.offer(name, LARGE_BYTES, seed)
    site.job("slow", "--throttle 512k")
    site.camera.output("systemctl", "start", "--no-block", "realize-move@slow.service")
    site.nas.wait(f"ls -a {INBOX} | grep -q {name}")
    return digest


def it_is_hardened(site: Site) -> None:
    """Both services pass `systemd-analyze security`."""
    for unit in ("realized.service", "realize-move@camera.service"):
        said = site.nas.output("systemd-analyze", "security", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
        print(f"     {said.strip().splitlines()[-1].lstrip('→ ')}")


def pages_and_completion_are_there(site: Site) -> None:
    """Man pages of both programs can be read, and each shell finds how to complete the command."""
    for page in ("realize", "realized"):
        site.nas.shell(f"man {page} | grep -q NAME")
    for path in (
        "/usr/share/bash-completion/completions/realize",
        "/usr/share/zsh/vendor-completions/_realize",
        "/usr/share/fish/vendor_completions.d/realize.fish",
    ):
        site.nas.output("test", "-s", path)


def the_container_serves(site: Site) -> None:
    """The image of `Containerfile` runs read-only as any user, is healthy, reloads, and ends in order."""
    image = build(site.checkout, site.origin, site.folder)
    volumes = {inside: site.folder / inside.lstrip("/") for inside in ("/config", "/inbox")}
    for path in volumes.values():
        path.mkdir()
        os.chown(path, *map(int, NAS_USER.split(":")))
    binds = [f"{path}:{inside}" for inside, path in volumes.items()]
    done = image.run("realize", "keygen", "/config/realized.key", as_user=NAS_USER, binds=binds)
    require(done.returncode == 0 and "[peers." in done.stdout, f"keygen fails: {done.stderr}")
    page = (site.checkout / "docs" / "containers.md").read_text()
    lines = re.findall(r"(?m)^    (key = .*\n(?:    .*\n|\n)*)", page)[0]
    (volumes["/config"] / "realized.toml").write_text(re.sub(r"(?m)^    ", "", lines))
    container = image.start(NAS_USER, binds)
    try:
        container.wait_for_health(30)
        reload = container.run("realize", "reload", "--config", "/config/realized.toml")
        require(reload.returncode == 0, f"the reload fails: {reload.stderr}")
    finally:
        code = container.stop()
    require(code == 0, f"the container ended with {code}")


def removal_keeps_and_purge_takes(site: Site) -> None:
    """Removal keeps configuration, key and files; purge takes what the package has made, and no file that was moved."""
    arrived = site.arrived("upgraded")
    former = site.nas.output("sha256sum", CONFIG, KEY)
    site.nas.output("apt-get", "remove", "--yes", "--quiet", "realize")
    require(site.nas.output("sha256sum", CONFIG, KEY) == former, "removal changed configuration or key")
    site.nas.shell("! grep -qx twistd /proc/[0-9]*/comm")
    site.install(site.nas, site.later)
    require(site.nas.output("sha256sum", CONFIG, KEY) == former, "installing it again changed configuration or key")
    site.nas.output("apt-get", "purge", "--yes", "--quiet", "realize")
    require(site.arrived("upgraded") == arrived, "purge has taken a file that was moved")
    elsewhere = " -o ".join(f"-path {path}" for path in NOT_OURS)
    left = site.nas.shell(
        f"find / -xdev \\( {elsewhere} \\) -prune -o \\( -name '*realize*' -o -path '/opt/*' \\) -print"
    ).split()
    require(not left, f"purge has left {left}")
    site.camera.output("systemctl", "disable", "--now", "realized")
    site.camera.shell(f"rm -rf {OUTBOX}")
    site.camera.output("apt-get", "purge", "--yes", "--quiet", "realize")
    require(not site.camera.path("/srv/realize").exists(), "purge has left empty directories")


FIRST: Final[tuple[Check, ...]] = (
    apt_installs_all_of_it,
    keys_are_of_the_machine,
    the_daemon_starts_at_once,
    a_peer_is_let_in_by_its_lines,
    files_are_moved,
)
"""Without these, no other check has any meaning."""

THEN: Final[tuple[Check, ...]] = (
    no_record_is_lost,
    it_says_what_it_does,
    its_log_file_is_rotated,
    a_stopped_batch_job_is_inactive,
    a_wrong_configuration_fails_the_start,
    a_failed_reload_fails,
    a_missing_directory_keeps_no_other_down,
    both_ends_change_their_keys,
    an_upgrade_loses_nothing,
    an_upgrade_ends_batch_jobs_in_order,
    it_is_hardened,
    pages_and_completion_are_there,
    the_container_serves,
    removal_keeps_and_purge_takes,
)
