"""Kinds of scripts/torture with several processes: on one folder, of one matrix, of one MPI job."""
import csv
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from torture_trial import Failure

MATRIX = """
seeds = [0, 1]
base = ["c.toml", "synthesis.adv=0", "rounds.per_epoch=0", "synthesis.batches=2"]
[[methods]]
name = "mtcki"
[[methods]]
name = "real"
config = ["synthesis.source=real"]
"""
MPIRUN = ["mpirun", "-n", "2"]
OPEN_MPI = ["--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "--mca",
            "mpi_yield_when_idle", "1", "--mca", "btl_vader_single_copy_mechanism", "none"]


def descendants(pid):
    """The numbers of the processes that this one started, and those that they started."""
    parent = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has ended meanwhile
        if fields[0] != "Z":
            parent[int(folder.name)] = int(fields[1])
    out = [pid]
    for p in out:
        out += [child for child, its in parent.items() if its == p]
    return out[1:]


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class JobKinds:
    def many(self):
        self.clean()
        processes = [self.start() for _ in range(4)]
        ends = [self.wait(p) for p in processes]
        self.count("trials")
        self.count("refused", sum(code == 2 for code, _ in ends))
        if any(code not in (0, 2) for code, _ in ends) or all(code for code, _ in ends):
            raise Failure(f"four processes: {ends}")
        self.same("four processes")

    # -- a matrix ----------------------------------------------------------------------------------
    def matrix_results(self):
        """The table without times and memory, and what lies in the cells."""
        with open(self.work / "m/table.csv", newline="") as file:
            rows = [{k: v for k, v in row.items() if "seconds" not in k and "memory" not in k}
                    for row in csv.DictReader(file)]
        out = {"table.csv": repr(rows)}
        for path in sorted((self.work / "m/cells").rglob("model.safetensors")):
            out[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        return out

    def matrix(self):
        arguments = ["matrix", str(self.root / "m.toml"), "name=m", f"out={self.work}"]
        self.clean()
        if not self.matrix_whole:
            (self.root / "m.toml").write_text(MATRIX)
            begun = time.time()
            self.finish("the untouched matrix", arguments=arguments)
            self.matrix_seconds = time.time() - begun
            self.matrix_whole = self.matrix_results()
            self.clean()
        processes = [self.start(arguments) for _ in range(4)]
        for _ in range(self.random.randrange(1, 5)):
            time.sleep(self.random.uniform(0.1, 0.5) * self.matrix_seconds)
            running = [p.pid for p in processes if p.poll() is None]
            jobs = [pid for p in running for pid in descendants(p)]
            if running:
                os.kill(self.random.choice(self.random.choice([running, jobs or running])),
                        signal.SIGKILL)
                self.count("trials")
        for process in processes:
            code, line = self.wait(process)
            # A cell whose own process was killed is shown as failed.
            if code not in (0, 1, -signal.SIGKILL):
                raise Failure(f"a process of a matrix: exit {code}: {line}")
        self.finish("the matrix again", arguments=arguments + ["--retry"])
        logs = (self.work / "m").rglob("log.txt")
        self.count("resumed", sum(log.read_bytes().count(b"resumed at") for log in logs))
        now = self.matrix_results()
        if now != self.matrix_whole:
            other = [k for k, v in self.matrix_whole.items() if now.get(k) != v]
            raise Failure(f"matrix: silently different: {', '.join(other)}")
        self.count("same")

    # -- two ranks ---------------------------------------------------------------------------------
    def mpirun(self):
        if not shutil.which("mpirun"):
            return None
        version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
        info = subprocess.run([self.binary, "info"], capture_output=True, text=True).stdout
        if not any(line.startswith("MPI") and "MPI" in line[3:] for line in info.splitlines()):
            return None
        return MPIRUN + (OPEN_MPI if "Open MPI" in version or "OpenRTE" in version else [])

    def mpi(self):
        """Rounding over two ranks is another one: the run that nothing happened to has them too."""
        if self.launcher is None:
            self.launcher = self.mpirun() or []
            if self.launcher:
                self.clean()
                begun = time.time()
                self.finish("two untouched ranks", launcher=self.launcher)
                self.mpi_seconds, self.mpi_whole = time.time() - begun, self.results()
        if not self.launcher:
            self.skipped.add("mpi")
            return
        self.clean()
        patience = self.mpi_seconds
        for _ in range(100):
            patience *= 1.1
            process = self.start(launcher=self.launcher)
            ranks = []
            try:
                process.wait(timeout=self.random.uniform(0.2, 1.0) * patience)
            except subprocess.TimeoutExpired:
                ranks = [p for p in descendants(process.pid)
                         if os.path.realpath(f"/proc/{p}/exe") == os.path.realpath(self.binary)]
                if ranks:
                    os.kill(self.random.choice(ranks), signal.SIGKILL)
                    self.count("trials")
            code, line = self.wait(process, limit=120 if ranks else 900)
            if code == 0:
                break
            if not ranks:
                raise Failure(f"two ranks: exit {code}: {line}")
            time.sleep(0.2)
            left = [p for p in ranks if is_alive(p)]
            if left:
                raise Failure(f"ranks are left when mpirun has ended: {left}")
        else:
            raise Failure("two ranks: not finished after 100 attempts")
        self.count("resumed", self.resumes())
        self.same("a rank was killed", self.mpi_whole)
