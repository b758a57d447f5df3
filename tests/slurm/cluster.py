"""A real Slurm of one machine and one node, its configuration and state in a directory of the test."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol', 'scancel', 'squeue')

CONF = """
ClusterName=lcx
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=30
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """What is missing to run one here."""
    path = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f'{", ".join(absent)} not found: apt-get install slurm-wlm munge'
    return None if os.geteuid() == 0 else 'starting a Slurm needs root'


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


class Cluster:
    """Commands of a running Slurm."""

    def __init__(self, directory: Path) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
        self.directory = directory
        self.environment = {
            **own,
            'SLURM_CONF': f'{directory}/slurm.conf',
            'PATH': f'{own.get("PATH", "")}:/usr/sbin:/sbin',
        }

    def run(self, *words: str) -> str:
        """What a command writes; it must end well within a minute."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f'{words}: {done.stdout}{done.stderr}'
        return done.stdout

    def submit(self, script: Path, **environment: str) -> str:
        """The job's number."""
        words = [
            'sbatch',
            '--parsable',
            f'--export=ALL,{",".join(f"{k}={v}" for k, v in environment.items())}',
        ]
        return self.run(*words, str(script)).strip()

    def job(self, number: str) -> dict[str, str]:
        """What ``scontrol show job`` says, by name."""
        words = self.run('scontrol', 'show', 'job', '--oneliner', number).split()
        return dict(word.split('=', 1) for word in words if '=' in word)

    def until(self, what: str, seen, limit: float = 120):
        """The first true value of ``seen()``."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if value := seen():
                return value
            time.sleep(0.25)
        log = (self.directory / 'slurmctld.log').read_text()[-3000:]
        raise AssertionError(f'{what}: not in {limit} s\n{self.run("squeue")}\n{log}')


@contextlib.contextmanager
def started(directory: Path) -> Iterator[Cluster]:
    """A Slurm for the length of a ``with`` block; its daemons are gone afterwards."""
    directory.chmod(0o755)
    for name in ('munge', 'state', 'spool'):
        (directory / name).mkdir()
    (directory / 'munge').chmod(0o700)
    (directory / 'munge.key').write_bytes(os.urandom(1024))
    (directory / 'munge.key').chmod(0o400)
    host = socket.gethostname().split('.')[0]
    conf = CONF.format(directory=directory, host=host, controller=free_port(), node=free_port())
    (directory / 'slurm.conf').write_text(conf)
    cluster, daemons = Cluster(directory), []
    munge = [
        'munged', '--foreground', '--force', f'--key-file={directory}/munge.key', f'--socket={directory}/munge/socket',
        f'--pid-file={directory}/munge/pid', f'--log-file={directory}/munge/log', f'--seed-file={directory}/munge/seed',
    ]  # fmt: skip
    try:
        for words in (munge, ['slurmctld', '-D', '-i'], ['slurmd', '-D', '-N', host]):
            with open(directory / f'{words[0]}.out', 'w') as out:
                daemons.append(
                    subprocess.Popen(words, env=cluster.environment, stdout=out, stderr=subprocess.STDOUT)
                )
            time.sleep(0.5)
        cluster.until('an idle node', lambda: 'State=IDLE' in cluster.run('scontrol', 'show', 'node'), 30)
        yield cluster
    finally:
        with contextlib.suppress(Exception):
            cluster.run('scancel', '--full', '--user=root', '--signal=KILL')
        for daemon in daemons[::-1]:
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
