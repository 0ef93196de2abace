// The out-of-line shims of CLinuxPoll.h, each one call.

#define _GNU_SOURCE

#include "CLinuxPoll.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

int skein_epoll_wait(int epoll, struct epoll_event *events, int capacity,
                     const struct timespec *timeout) {
  return (int)syscall(SYS_epoll_pwait2, epoll, events, capacity, timeout, NULL, (size_t)0);
}

int skein_accept(int listener, struct sockaddr *address, socklen_t *address_bytes) {
  return accept4(listener, address, address_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int skein_name_thread(const char *name) { return pthread_setname_np(pthread_self(), name); }

void skein_lower_thread_priority(int nice) { (void)setpriority(PRIO_PROCESS, 0, nice); }

void skein_precise_timers(void) { (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); }

void skein_end_with_parent(void) {
  (void)prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0UL, 0UL, 0UL);
}
