// What the event loop needs of Linux and Swift's Glibc module does not bring: the epoll, eventfd
// and signalfd headers, and calls that need GNU extensions. Called by Transport.

#ifndef SKEIN_CLINUX_POLL_H
#define SKEIN_CLINUX_POLL_H

#include <pthread.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>

/// epoll_pwait2(2) without a signal mask: waits to the nanosecond, without end if `timeout` is
/// null. Fails with ENOSYS before Linux 5.11 (or EPERM where a sandbox does not know it).
int skein_epoll_wait(int epoll, struct epoll_event *events, int capacity,
                     const struct timespec *timeout);

/// accept4(2) with SOCK_NONBLOCK and SOCK_CLOEXEC.
int skein_accept(int listener, struct sockaddr *address, socklen_t *address_bytes);

/// pthread_setname_np(3) on the calling thread; at most 15 bytes.
int skein_name_thread(const char *name);

/// setpriority(2) of the calling thread alone: from now on it gets less of a processor that others want too.
void skein_lower_thread_priority(int nice);

/// prctl(2) with PR_SET_TIMERSLACK: waits of the calling thread end within a nanosecond of their
/// time as far as the kernel can, instead of up to 50 microseconds later.
void skein_precise_timers(void);

/// prctl(2) with PR_SET_PDEATHSIG and SIGKILL: this process dies when the thread ends that started it.
void skein_end_with_parent(void);

#endif
