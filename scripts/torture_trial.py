"""What the kinds of scripts/torture share: a tiny run, its processes, and the comparison with a run
that nothing happened to."""
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A third of a second, with every stage and something to resume in each.
CONFIG = """
threads = 1
tensorboard = false
[data]
name = "synth10"
train_limit = 40
test_limit = 20
[train]
epochs = 3
batch_size = 20
[[teachers]]
model = "vgg8_w0.125"
name = "t"
[synthesis]
batches = 3
batch_size = 16
g_steps = 2
nz = 8
ngf = 4
bank_size = 32
bank_draw = 16
head_dim = 16
checkpoint_every = 1
adv = 0.5
[rounds]
per_epoch = 1
[distill]
epochs = 2
steps_per_epoch = 3
batch_size = 16
ts_queue = 32
[[students]]
model = "vgg8_w0.125"
name = "s"
"""
RESULTS = r"(model|best)\.safetensors$|synth/(shard.*|manifest.json)$|confusion.json$|neighbours"


class Failure(Exception):
    pass


class Trial:
    """A folder of its own, in which one process of the script tries one thing after another."""

    def __init__(self, binary, root, seed, part=(0, 1), first=None):
        self.random = random.Random(seed)
        self.binary, self.part = str(binary), part  # part: (i, n), this one of n beside each other
        self.sanitized = b"__asan_init" in pathlib.Path(binary).read_bytes()
        self.root, self.work = root, root / "work"
        self.row, self.failures = {}, []
        self.killed_uses = 0
        root.mkdir(exist_ok=True)
        (root / "c.toml").write_text(CONFIG)
        start = time.time()
        self.finish("the untouched run")
        self.seconds = time.time() - start
        self.whole = first.whole if first else self.results()
        self.same("the untouched run")
        self.finished = self.keep("finished")

    def count(self, column, n=1):
        self.row[column] = self.row.get(column, 0) + n

    # -- one process -------------------------------------------------------------------------------
    def arguments(self):
        return ["run", str(self.root / "c.toml"), "name=x", f"out={self.work}"]

    def start(self, arguments=None, environment=None, before=None, launcher=()):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        if self.sanitized:
            environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")
            environment["ASAN_OPTIONS"] += ":verify_asan_link_order=0:allocator_may_return_null=1"
            environment.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
        return subprocess.Popen([*launcher, self.binary] + (arguments or self.arguments()),
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
                                preexec_fn=before, start_new_session=True)

    def wait(self, process, limit=900):
        """Its exit code and the last line that it said."""
        try:
            error = process.communicate(timeout=limit)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Failure("hangs")
        lines = [line for line in error.splitlines() if line]
        return process.returncode, lines[-1] if lines else ""

    def finish(self, what, **how):
        code, line = self.wait(self.start(**how))
        if code != 0:
            raise Failure(f"{what}: exit {code}: {line}")

    # -- the folder of the run ---------------------------------------------------------------------
    def clean(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def keep(self, name):
        kept = self.root / name
        shutil.rmtree(kept, ignore_errors=True)
        subprocess.run(["cp", "-a", self.work, kept], check=True)  # pipes too
        return kept

    def put_back(self, kept):
        self.clean()
        shutil.copytree(kept, self.work, symlinks=True)

    def put_some_state(self, finished=0.3):
        """A finished run, or one that was killed somewhere; each of those serves a few times."""
        if self.random.random() < finished:
            return self.put_back(self.finished)
        if self.killed_uses % 8 == 0:
            while True:
                self.clean()
                process = self.start()
                time.sleep(self.random.uniform(0.2, 1.0) * self.seconds)
                process.kill()
                self.wait(process)
                if (self.work / "x/teachers").exists():
                    break
            self.keep("killed")
        self.killed_uses += 1
        return self.put_back(self.root / "killed")

    def resumes(self):
        """How often runs in this folder went on from a checkpoint."""
        log = self.work / "x/log.txt"
        return log.read_bytes().count(b"resumed at") if log.is_file() else 0

    def results(self):
        out = {}
        for path in sorted((self.work / "x").rglob("*")):
            name = str(path.relative_to(self.work / "x"))
            if re.search(RESULTS, name):
                content = path.read_bytes()
                if path.name == "manifest.json":  # it names the folder, which moves here
                    content = re.sub(rb'"(command|crc32c)": .*', b"", content)
                out[name] = hashlib.sha256(content).hexdigest()
        result = json.loads((self.work / "x/result.json").read_text())
        out["result"] = json.dumps([result[k] for k in ("teachers", "students", "synthetic")])
        return out

    def same(self, what, whole=None):
        whole, now = whole or self.whole, self.results()
        other = [name for name in whole if now.get(name) != whole[name]]
        if other:
            raise Failure(f"{what}: silently different: {', '.join(other)}")
        self.count("same")

    def recover(self, what, damaged=None, codes=(2, 3, 6)):
        """Runs, deletes what a refusal names, and runs again, until it ends with the same bits."""
        before, refused = self.resumes(), 0
        for _ in range(8):
            code, line = self.wait(self.start())
            if code == 0:
                self.count("resumed", max(0, self.resumes() - before))
                self.count("refused", int(refused > 0))
                return self.same(what)
            if code not in codes:
                raise Failure(f"{what}: exit {code}: {line}")
            refused += 1
            self.delete_named(what, line, damaged)
        raise Failure(f"{what}: refused again and again: {line}")

    def delete_named(self, what, line, damaged):
        named = re.search(r'delete the folder "([^"]+)"|delete (/[^ ;]+)|'
                          r'error: (/.*?): damaged; delete it', line)
        if not named:  # a folder, pipe or link in the way is named itself
            named = re.search(r'"?(/[^ ":;]*)', line)
        target = pathlib.Path(next(g for g in named.groups() if g)) if named else None
        if not target or self.work not in target.parents:
            raise Failure(f"{what}: does not say what to delete: {line}")
        if not os.path.lexists(target):
            if not damaged or not os.path.lexists(damaged):
                raise Failure(f"{what}: names what is not there: {line}")
            target = damaged
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink()
