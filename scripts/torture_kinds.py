"""Kinds of scripts/torture that act on one process from outside."""
import os
import re
import resource
import signal
import subprocess

from torture_trial import ROOT, Failure


class ProcessKinds:
    def until_finished(self, number, codes):
        self.clean()
        patience = self.seconds
        for _ in range(200):
            patience *= 1.1  # on a machine that has become busier no attempt might get anywhere
            process = self.start()
            try:
                process.wait(timeout=self.random.uniform(0.05, 1.1) * patience)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                self.count("trials")
            code, line = self.wait(process)
            if code == 0:
                break
            if code not in codes:
                raise Failure(f"exit {code}: {line}")
        else:
            raise Failure("not finished after 200 attempts")
        self.count("resumed", self.resumes())
        left = [str(p) for p in (self.work / "x").rglob("*.tmp-*")]
        if left:
            raise Failure(f"temporary files are left: {left}")
        self.same("interrupted")

    def kill(self):
        self.until_finished(signal.SIGKILL, [-signal.SIGKILL])

    def stop(self):
        # Before its handlers are there a process dies of the signal.
        self.until_finished(signal.SIGTERM, [143, -signal.SIGTERM])

    def damage(self):
        self.put_some_state()
        files = [p for p in sorted((self.work / "x").rglob("*"))
                 if p.is_file() and not p.is_symlink()]
        path = self.random.choice(files)
        content = bytearray(path.read_bytes())
        how = self.random.choice(["flip", "cut", "zero", "append", "delete", "swap", "folder",
                                  "pipe", "loop"])
        if how == "flip" and content:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif how == "cut":
            content = content[:self.random.randrange(len(content) + 1)]
        elif how == "zero" and content:
            at = self.random.randrange(len(content))
            content[at:at + 4096] = bytes(len(content[at:at + 4096]))
        elif how == "append":
            content += b"x" * 100
        elif how == "swap":
            content = bytearray(self.random.choice(files).read_bytes())
        path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "loop":
            path.symlink_to(path.name)
        elif how != "delete":
            path.write_bytes(content)
        self.count("trials")
        self.recover(f"{how} of {path.relative_to(self.work / 'x')}", path)

    def limit(self):
        self.clean()
        if self.sanitized or self.random.random() < 0.5:
            size = self.random.choice([1, 100, 4096, 20000, 100000, 400000])
            which, good = resource.RLIMIT_FSIZE, (0, 6)
        else:
            size = self.random.randrange(100, 3000) << 20
            # The loader's own failures too.
            which, good = resource.RLIMIT_AS, (0, 1, 5, 127, -6, -11)
        code, line = self.wait(self.start(before=lambda: resource.setrlimit(which, (size, size))))
        self.count("trials")
        self.count("refused", int(code != 0))
        if code not in good or (code in (1, -6, -11) and size > 1 << 30):
            raise Failure(f"limit of {size}: exit {code}: {line}")
        before = self.resumes()
        self.finish("after a limit")
        self.count("resumed", self.resumes() - before)
        self.same("after a limit")

    def hostile(self):
        folder = ROOT / "tests/data/formats"
        files = [p for p in sorted(folder.iterdir())
                 if p.suffix in (".pth", ".pt", ".safetensors", ".npz")]
        files += [self.finished / "x/teachers/t/model.safetensors", *[self.root / "c.toml"] * 10]
        source = self.random.choice(files)
        content = bytearray(source.read_bytes())
        for _ in range(self.random.choice([1, 3, 30])):
            at = self.random.randrange(min(len(content), 4000))
            content[at] = self.random.choice([0, 1, 0x7f, 0x80, 0xff, self.random.randrange(256)])
        if source.suffix == ".toml":
            path = self.root / "h.toml"
            arguments = ["run", str(path), "name=h", f"out={self.root}", "--check"]
        else:
            path = self.root / self.random.choice(["h.pth", "h.safetensors"])
            arguments = ["export", "weights", "--weights", str(path), "--model", "vgg8_w0.125",
                         "--out", str(self.root / "o.safetensors")]
        path.write_bytes(content)
        process = self.start(arguments)
        error = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else \
            os.WEXITSTATUS(status)
        process.stderr.close()
        self.count("trials")
        self.count("refused", int(process.returncode != 0))
        if process.returncode not in (0, 2, 3):
            raise Failure(f"hostile file {path}: exit {process.returncode}: {error[-300:]!r}")
        if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", error):
            raise Failure(f"hostile file {path}: control characters: {error[-300:]!r}")
        slower = 4 if self.sanitized else 1
        seconds = used.ru_utime + used.ru_stime
        if seconds > 2 * slower or used.ru_maxrss > (600 << 10) * slower:
            raise Failure(f"hostile file {path}: {used.ru_maxrss >> 10} MiB, {seconds:.1f} s")
