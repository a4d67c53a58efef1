"""Kinds of scripts/torture that sit between the program and its files, in a preloaded library."""
import hashlib
import os
import shutil
import subprocess

from torture_trial import ROOT, Failure

# The environment says what happens at which call of the process:
#   TORTURE_CALL n     at the n-th of those counted; they are counted from 1
#   TORTURE_HOW fail   it is not carried out: no space left
#               die    the program is killed before it
#               cut    of those that read or map a file: the file is cut short first
#   TORTURE_FILES      how the names of files begin that may be cut, TORTURE_PART: to how many %
#   TORTURE_LOG        a file that receives what was called, or at the end how many were counted
#   TORTURE_STORE      a folder that receives what each fsync has made last
PRELOADED = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int calls;
static void tell(const char* what, int number) {
  FILE* log = fopen(getenv("TORTURE_LOG"), "w");
  if (log) fprintf(log, "%s %d", what, number), fclose(log);
}
__attribute__((destructor)) static void tell_calls(void) {
  if (getenv("TORTURE_CALL") && !atoi(getenv("TORTURE_CALL"))) tell("all", calls);
}
static int chosen(const char* how, const char* what) {
  const char* wanted = getenv("TORTURE_HOW");
  if (!wanted || !strstr(how, wanted)) return 0;
  const int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (number != atoi(getenv("TORTURE_CALL"))) return 0;
  tell(what, number);
  if (!strcmp(wanted, "die")) kill(getpid(), SIGKILL);
  errno = ENOSPC;
  return 1;
}
static int fails(const char* what) { return chosen("fail die", what); }

// What an fsync makes last: the content of a file, the names in a folder. A link keeps the number
// of each file from being given to another one.
static void store(int fd) {
  const char* folder = getenv("TORTURE_STORE");
  struct stat s;
  if (!folder || fstat(fd, &s)) return;
  char path[64], name[4096], other[4096];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  snprintf(other, sizeof other, "%s/new", folder);
  if (S_ISDIR(s.st_mode)) {
    snprintf(name, sizeof name, "%s/folder-%lu", folder, (unsigned long)s.st_ino);
    FILE* out = fopen(other, "w");
    DIR* names = opendir(path);
    for (struct dirent* e; out && names && (e = readdir(names));) {
      if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
      fprintf(out, "%lu %s\n", (unsigned long)e->d_ino, e->d_name);
      char kept[4096];
      snprintf(kept, sizeof kept, "%s/kept-%lu", folder, (unsigned long)e->d_ino);
      if (e->d_type != DT_DIR) linkat(dirfd(names), e->d_name, AT_FDCWD, kept, 0);
    }
    if (out) fclose(out);
    if (names) closedir(names);
  } else {
    snprintf(name, sizeof name, "%s/kept-%lu", folder, (unsigned long)s.st_ino);
    linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
    snprintf(name, sizeof name, "%s/file-%lu", folder, (unsigned long)s.st_ino);
    const int in = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    const int out = syscall(SYS_openat, AT_FDCWD, other, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    while (sendfile(out, in, NULL, 1 << 20) > 0) {}
    close(in);
    close(out);
  }
  syscall(SYS_renameat2, AT_FDCWD, other, AT_FDCWD, name, 0);
}
static void cut(int fd, const char* what) {
  const char* files = getenv("TORTURE_FILES");
  struct stat s;
  char path[64], name[4096];
  if (!files || fstat(fd, &s) || !S_ISREG(s.st_mode) || s.st_size == 0) return;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(path, name, sizeof name - 1);
  if (length < 0 || strncmp(name, files, strlen(files)) || !chosen("cut", what)) return;
  if (truncate(path, s.st_size * (atol(getenv("TORTURE_PART"))) / 100)) perror("truncate");
}

ssize_t write(int fd, const void* p, size_t n) {
  return fd > 2 && chosen("fail", "write") ? -1 : syscall(SYS_write, fd, p, n);
}
int fsync(int fd) {
  if (fails("fsync")) return -1;
  store(fd);
  return getenv("TORTURE_STORE") ? 0 : syscall(SYS_fsync, fd);
}
int rename(const char* a, const char* b) {
  return fails("rename") ? -1 : syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0);
}
int renameat2(int da, const char* a, int db, const char* b, unsigned flags) {
  return fails("renameat2") ? -1 : syscall(SYS_renameat2, da, a, db, b, flags);
}
int symlink(const char* a, const char* b) {
  return fails("symlink") ? -1 : syscall(SYS_symlinkat, a, AT_FDCWD, b);
}
int unlink(const char* a) {
  return chosen("die", "unlink") ? -1 : syscall(SYS_unlinkat, AT_FDCWD, a, 0);
}
int mkdir(const char* a, mode_t mode) {
  if (fails("mkdir")) return -1;
  const int made = syscall(SYS_mkdirat, AT_FDCWD, a, mode);
  struct stat s;
  if (made == 0 && getenv("TORTURE_STORE") && stat(a, &s) == 0) {
    char name[4096];
    snprintf(name, sizeof name, "%s/folder-%lu", getenv("TORTURE_STORE"), (unsigned long)s.st_ino);
    syscall(SYS_unlinkat, AT_FDCWD, name, 0);
  }
  return made;
}
int open(const char* a, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  if ((flags & O_CREAT) && fails("open")) return -1;
  return syscall(SYS_openat, AT_FDCWD, a, flags, mode);
}
int open64(const char* a, int flags, ...) __attribute__((alias("open")));
ssize_t read(int fd, void* p, size_t n) {
  cut(fd, "read");
  return syscall(SYS_read, fd, p, n);
}
void* mmap(void* at, size_t n, int protection, int flags, int fd, off_t offset) {
  void* p = (void*)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
  if (fd >= 0 && p != MAP_FAILED) cut(fd, "mmap");
  return p;
}
void* mmap64(void*, size_t, int, int, int, off_t) __attribute__((alias("mmap")));
"""


class DiskKinds:
    def disk(self):
        number = self.next_call("disk", "fail")
        self.put_back(self.root / "disk-state")
        (code, line), what = self.wait_preloaded("fail", number)
        if not what:
            return
        self.count("trials")
        self.count("refused", int(code != 0))
        if code not in (0, 6):
            raise Failure(f"{what}: no space: exit {code}: {line}")
        before = self.resumes()
        self.finish(f"after {what}: no space")
        self.count("resumed", self.resumes() - before)
        self.same(f"after {what}: no space")

    def power(self):
        number = self.next_call("power", "die")
        self.put_back(self.root / "power-state")
        store = self.root / "store"
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir()
        self.store_all(store)
        (code, line), what = self.wait_preloaded("die", number, TORTURE_STORE=str(store))
        if not what:
            return
        dead = self.root / "dead"
        shutil.rmtree(dead, ignore_errors=True)
        self.work.rename(dead)
        now = {path.lstat().st_ino: path for path in [dead, *dead.rglob("*")]}
        loss = self.random.choice(["lost", "emptied", "mixed"])
        self.count("trials")
        self.rebuild(store, now, dead.stat().st_ino, self.work, loss)
        for folder in dead.rglob("ckpt"):  # of two checkpoints the older one lasts
            names = sorted(p.name for p in folder.glob("step-*"))
            after = self.work / folder.relative_to(dead)
            if len(names) > 1 and not any((after / name / "state.json").is_file() and
                                          (after / name / "state.json").stat().st_size
                                          for name in names[-2:]):
                raise Failure(f"power lost before {what}, {loss}: no checkpoint in {after}")
        self.recover(f"power lost before {what}, {loss}")

    def mapped(self):
        if self.random.random() < 0.3:
            return self.mapped_weights()
        number = self.next_call("mapped", "cut")
        self.put_back(self.root / "mapped-state")
        (code, line), what = self.wait_preloaded("cut", number)
        if not what:
            return
        self.count("trials")
        if code not in (0, 2, 3):
            raise Failure(f"file cut short at {what}: exit {code}: {line}")
        return self.recover(f"after a file was cut short at {what}")

    def mapped_weights(self):
        """A file of weights that another program writes anew meanwhile."""
        source = self.random.choice([*sorted((ROOT / "tests/data/formats").glob("*.pth")),
                                     self.finished / "x/teachers/t/model.safetensors"])
        path, out = self.root / f"w{source.suffix}", self.root / "o.safetensors"
        arguments = ["export", "weights", "--weights", str(path), "--model", "vgg8_w0.125",
                     "--out", str(out)]
        written = []
        for number in (0, self.random.randrange(1, 6)):
            shutil.copyfile(source, path)
            out.unlink(missing_ok=True)
            (code, line), what = self.wait_preloaded("cut", number, arguments)
            if code not in (0, 2, 3):
                raise Failure(f"{source} cut short at {what}: exit {code}: {line}")
            written.append(hashlib.sha256(out.read_bytes()).digest() if out.exists() else b"")
        if not what:
            return
        self.count("trials")
        self.count("refused", int(code != 0))
        self.count("same", int(code == 0))
        if code == 0 and written[0] != written[1]:
            raise Failure(f"{source} cut short at {what}: silently different")

    # -- the preloaded library ---------------------------------------------------------------------
    def wait_preloaded(self, how, number, arguments=None, **more):
        """Its end, and what the call of this number was; "" when it was never reached."""
        library, log = self.root / "preloaded.so", self.root / "call"
        if not library.exists():
            source = self.root / "preloaded.c"
            source.write_text(PRELOADED)
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        log.unlink(missing_ok=True)
        end = self.wait(self.start(arguments, environment={
            "LD_PRELOAD": str(library), "TORTURE_HOW": how, "TORTURE_CALL": str(number),
            "TORTURE_PART": str(self.random.choice([0, 0, 50, 99])), "TORTURE_LOG": str(log),
            "TORTURE_FILES": f"{self.root}/w", **more}))  # the run's folder, and w.pth
        return end, log.read_text() if log.exists() else ""

    def next_call(self, kind, how):
        """The number of a call that this kind has not met in the state of the folder that it is at:
        the first is an empty one, or for what reads a finished run; later ones are killed runs."""
        left = self.calls.setdefault(kind, [])
        if not left:
            if kind not in self.sweeps:
                self.clean()
                self.work.mkdir()
                if how == "cut":
                    self.put_back(self.finished)
            else:
                self.put_some_state(finished=0.1)
            self.sweeps[kind] = self.sweeps.get(kind, -1) + 1
            self.keep(f"{kind}-state")
            (code, line), counted = self.wait_preloaded(how, 0)
            if code != 0:
                raise Failure(f"{kind}: with the preloaded library: exit {code}: {line}")
            mine, parts = self.part
            left += [n for n in range(1, int(counted.split()[1]) + 1) if n % parts == mine]
            self.random.shuffle(left)
            self.found[kind] = len(left)
        return left.pop()

    # -- a disk without power ----------------------------------------------------------------------
    def store_all(self, store):
        """What lies in the folder has been there for long: it lasts."""
        for path in [self.work, *self.work.rglob("*")]:
            inode = path.lstat().st_ino
            if path.is_dir() and not path.is_symlink():
                names = [f"{e.inode()} {e.name}\n" for e in os.scandir(path)]
                (store / f"folder-{inode}").write_text("".join(names))
                continue
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, store / f"file-{inode}")
            os.link(path, store / f"kept-{inode}", follow_symlinks=False)

    def rebuild(self, store, now, inode, out, loss):
        """The folder of this number after the power failed. What was synced is there. Of the rest
        lost: nothing; emptied: each name, but no content; mixed: each name and content by chance,
        the content also as zeros."""
        out.mkdir(parents=True, exist_ok=True)
        synced = store / f"folder-{inode}"
        old, new = {}, {}
        if synced.exists():
            old = {name: int(n) for n, name in
                   (line.split(" ", 1) for line in synced.read_text().splitlines())}
        if inode in now and now[inode].is_dir():
            new = {e.name: e.inode() for e in os.scandir(now[inode])}
        for name in sorted({*old, *new}):
            names = self.random.choice({"lost": [old], "emptied": [new]}.get(loss, [old, new]))
            if name not in names:
                continue
            number = names[name]
            kept = store / f"kept-{number}"
            path = kept if os.path.lexists(kept) else now.get(number)
            if path is not None and path.is_symlink():
                (out / name).symlink_to(os.readlink(path))
            elif path is None or path.is_dir():
                self.rebuild(store, now, number, out / name, loss)
            else:
                (out / name).write_bytes(self.content(store / f"file-{number}", path, loss))

    def content(self, synced, path, loss):
        old = synced.read_bytes() if synced.exists() else b""
        if loss != "mixed":
            return old
        new = path.read_bytes()
        zeros = old[:len(new)] + bytes(max(0, len(new) - len(old)))
        return self.random.choice([old, new, zeros])
