// Preloaded into a program: counts what it does to files of one folder, and fails or ends it at one of these points.
//
// Input     STROBE_FAULT_FOLDER  only regular files below it count (absolute, without symbolic links)
//           STROBE_FAULT         count, kill, kill-after, kill-half, enospc (from then on), eio (once)
//           STROBE_FAULT_AT      the event, from 1
//           STROBE_FAULT_REPORT  with count: gets "<kind> <file name>" a line when the program exits
// Events    write, pwrite, fsync, fdatasync, rename, link and open for creation. libc's own streams do not come by here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum Fault { kNone, kCount, kKill, kKillAfter, kKillHalf, kEnospc, kEio };
enum { kLongestLog = 1 << 20 };

static enum Fault fault;
static long fault_at, events;
static char folder[PATH_MAX];
static char event_log[kLongestLog];
static size_t log_bytes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void read_environment(void) {
  static const char* const kNames[] = {"", "count", "kill", "kill-after", "kill-half", "enospc", "eio"};
  const char* wanted = getenv("STROBE_FAULT");
  const char* path = getenv("STROBE_FAULT_FOLDER");
  const char* at = getenv("STROBE_FAULT_AT");
  if (!wanted || !path || strlen(path) >= sizeof folder) return;
  strcpy(folder, path);
  fault_at = at ? atol(at) : 0;
  for (int i = kCount; i <= kEio; ++i) {
    if (strcmp(wanted, kNames[i]) == 0) fault = (enum Fault)i;
  }
}

static void write_raw(int descriptor, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t count = syscall(SYS_write, descriptor, data, bytes);
    if (count <= 0) return;
    data += count;
    bytes -= (size_t)count;
  }
}

__attribute__((destructor)) static void report(void) {
  const char* path = getenv("STROBE_FAULT_REPORT");
  if (fault != kCount || !path) return;
  const int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (descriptor < 0) return;
  write_raw(descriptor, event_log, log_bytes);
  syscall(SYS_close, descriptor);
}

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

static int is_ours(const char* path) {
  const size_t length = strlen(folder);
  return fault != kNone && length > 0 && strncmp(path, folder, length) == 0 && path[length] == '/';
}

// The file behind a descriptor; 0 if it does not count.
static int path_of(int descriptor, char path[PATH_MAX]) {
  struct stat status;
  if (fault == kNone || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length <= 0) return 0;
  path[length] = '\0';
  return is_ours(path);
}

// A name, which need not exist yet: its folder does.
static int absolute(int at, const char* name, char path[PATH_MAX]) {
  if (fault == kNone || (at != AT_FDCWD && name[0] != '/')) return 0;
  char parent[PATH_MAX];
  const char* slash = strrchr(name, '/');
  const size_t length = slash ? (size_t)(slash - name) : 0;
  if (length >= sizeof parent) return 0;
  memcpy(parent, slash ? name : ".", slash ? length : 1);
  parent[slash ? length : 1] = '\0';
  if (slash == name) strcpy(parent, "/");
  char real[PATH_MAX];
  if (!realpath(parent, real)) return 0;
  const int written = snprintf(path, PATH_MAX, "%s/%s", real, slash ? slash + 1 : name);
  return written > 0 && written < PATH_MAX && is_ours(path);
}

// Counts, and says whether this is the event; ENOSPC stays for all later ones.
static int is_hit(const char* kind, const char* path) {
  pthread_mutex_lock(&mutex);
  const long number = ++events;
  if (fault == kCount) {
    const int written =
        snprintf(event_log + log_bytes, sizeof event_log - log_bytes, "%s %s\n", kind, strrchr(path, '/') + 1);
    if (written > 0 && log_bytes + (size_t)written < sizeof event_log) log_bytes += (size_t)written;
  }
  pthread_mutex_unlock(&mutex);
  return fault == kEnospc ? number >= fault_at : number == fault_at;
}

// Before an event without bytes. The error to fail with, or 0; `is_last`: the program ends after the call.
static int before(const char* kind, const char* path, int takes_space, int fails_with_eio, int* is_last) {
  *is_last = 0;
  if (!is_hit(kind, path)) return 0;
  if (fault == kKill || fault == kKillHalf) die();
  *is_last = fault == kKillAfter;
  if (fault == kEnospc && takes_space) return ENOSPC;
  return fault == kEio && fails_with_eio ? EIO : 0;
}

static long finish(long result, int is_last) {
  if (is_last) die();
  return result;
}

static ssize_t put(int descriptor, const void* data, size_t bytes, off_t offset, const char* kind) {
  char path[PATH_MAX];
  const int is_positioned = offset >= 0;
  const int is_event = path_of(descriptor, path) && is_hit(kind, path);
  size_t wanted = bytes;
  if (is_event) {
    if (fault == kKill) die();
    if (fault == kKillHalf) wanted = bytes / 2;
    if (fault == kEnospc || fault == kEio) {
      errno = fault == kEio ? EIO : ENOSPC;
      return -1;
    }
  }
  const ssize_t count = is_positioned ? syscall(SYS_pwrite64, descriptor, data, wanted, offset)
                                      : syscall(SYS_write, descriptor, data, wanted);
  if (is_event && (fault == kKillHalf || fault == kKillAfter)) die();
  return count;
}

ssize_t write(int descriptor, const void* data, size_t bytes) { return put(descriptor, data, bytes, -1, "write"); }
ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
  return put(descriptor, data, bytes, offset, "pwrite");
}
ssize_t pwrite64(int descriptor, const void* data, size_t bytes, off64_t offset) {
  return put(descriptor, data, bytes, offset, "pwrite");
}

static int synchronise(int descriptor, long call, const char* kind) {
  char path[PATH_MAX];
  int is_last = 0;
  if (path_of(descriptor, path)) {
    const int code = before(kind, path, 0, 1, &is_last);
    if (code != 0) {
      errno = code;
      return -1;
    }
  }
  return (int)finish(syscall(call, descriptor), is_last);
}
int fsync(int descriptor) { return synchronise(descriptor, SYS_fsync, "fsync"); }
int fdatasync(int descriptor) { return synchronise(descriptor, SYS_fdatasync, "fdatasync"); }

static int move(const char* kind, int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  char path[PATH_MAX];
  int is_last = 0;
  const int is_link = strcmp(kind, "link") == 0;
  if (absolute(to_at, to, path)) {
    const int code = before(kind, path, 1, 0, &is_last);
    if (code != 0) {
      errno = code;
      return -1;
    }
  }
  return (int)finish(syscall(is_link ? SYS_linkat : SYS_renameat2, from_at, from, to_at, to, flags), is_last);
}
int rename(const char* from, const char* to) { return move("rename", AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char* from, int to_at, const char* to) {
  return move("rename", from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  return move("rename", from_at, from, to_at, to, flags);
}
int link(const char* from, const char* to) { return move("link", AT_FDCWD, from, AT_FDCWD, to, 0); }

static int open_any(int at, const char* name, int flags, mode_t mode) {
  char path[PATH_MAX];
  int is_last = 0;
  if ((flags & O_CREAT) && absolute(at, name, path)) {
    const int code = before("open", path, 1, 0, &is_last);
    if (code != 0) {
      errno = code;
      return -1;
    }
  }
  return (int)finish(syscall(SYS_openat, at, name, flags, mode), is_last);
}

#define STROBE_MODE(last)                           \
  mode_t mode = 0;                                  \
  if ((flags & O_CREAT) || (flags & __O_TMPFILE)) { \
    va_list arguments;                              \
    va_start(arguments, last);                      \
    mode = (mode_t)va_arg(arguments, int);          \
    va_end(arguments);                              \
  }

int open(const char* name, int flags, ...) {
  STROBE_MODE(flags)
  return open_any(AT_FDCWD, name, flags, mode);
}
int open64(const char* name, int flags, ...) {
  STROBE_MODE(flags)
  return open_any(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}
int openat(int at, const char* name, int flags, ...) {
  STROBE_MODE(flags)
  return open_any(at, name, flags, mode);
}
int openat64(int at, const char* name, int flags, ...) {
  STROBE_MODE(flags)
  return open_any(at, name, flags | O_LARGEFILE, mode);
}
int __open_2(const char* name, int flags) { return open_any(AT_FDCWD, name, flags, 0); }
int __open64_2(const char* name, int flags) { return open_any(AT_FDCWD, name, flags | O_LARGEFILE, 0); }
int creat(const char* name, mode_t mode) { return open_any(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
