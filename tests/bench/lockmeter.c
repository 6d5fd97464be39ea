/* How long the interpreter's lock is held: CPython 3.11 only, whose runtime says so in
 * _PyRuntime.ceval.gil.
 *
 * Threads that never take the lock look at random moments, so that what they add up is wall time with
 * the lock taken, whoever has it. Tools that stop the process to look overstate it, as a
 * thread that waits in the kernel with the lock given back looks the same to them.
 *
 * Who has the lock may have lost its processor to another program. That is the machine's doing, not
 * the daemon's: with more processors the lock would be free sooner. So each look that finds it taken
 * also finds out what its holder does: runs, waits for a processor, or sleeps. The looks have
 * real-time priority where that is permitted. Otherwise they come when the scheduler lets them, which
 * on full processors is often just when somebody has given one up.
 *
 * A look itself takes a processor. If that is the holder's, nobody can tell whether it had run, so
 * such looks say nothing about it. Two threads look, each from a processor of its own, so that the
 * others do not depend on where the holder is.
 *
 * What each has seen lies in a file, which others read without asking the process (struct seen).
 */
#define _GNU_SOURCE
#define Py_BUILD_CORE 1
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "internal/pycore_runtime.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
#error "the lock of another CPython than 3.11 lies elsewhere"
#endif

/* Two milliseconds apart on average: 1,000 looks a second, each some microseconds of a core. */
#define WATCHERS 2
#define PERIOD_NANOSECONDS (WATCHERS * 1000000)

/* Above every program of normal priority, below the kernel's own threads (50). */
#define PRIORITY 10

struct seen {
	double watched, held; /* seconds */
	double runs, waits, sleeps; /* looks at the holder that told what it does */
	double is_prompt; /* 1: with real-time priority */
};

static __thread volatile struct seen *seen;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

/* The thread that has the lock; 0: unknown. Its state may be freed meanwhile, so the kernel reads
 * it. */
static pid_t holder(void)
{
	PyThreadState *state =
		(PyThreadState *)_Py_atomic_load_relaxed(&_PyRuntime.ceval.gil.last_holder);
	unsigned long thread = 0;
	if (state == NULL)
		return 0;
	struct iovec into = {&thread, sizeof thread}, from = {&state->native_thread_id, sizeof thread};
	if (process_vm_readv(getpid(), &into, 1, &from, 1, 0) != sizeof thread)
		return 0;
	return (pid_t)thread;
}

/* Nanoseconds that a thread has run, up to now; the kernel's own form of such a clock's number
 * (MAKE_THREAD_CPUCLOCK, CPUCLOCK_SCHED). */
static long long ran(pid_t thread)
{
	struct timespec time;
	if (clock_gettime((clockid_t)((~(unsigned)thread << 3) | 6), &time))
		return -1;
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* State and processor of a thread (proc(5)); 0: there is none. */
static char state_of(pid_t thread, int *processor)
{
	char path[64], text[1024], *field, state;
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return 0;
	ssize_t size = read(file, text, sizeof text - 1);
	close(file);
	if (size <= 0)
		return 0;
	text[size] = 0;
	field = strrchr(text, ')');
	if (field == NULL)
		return 0;
	state = field[2];
	for (int skipped = 0; skipped < 37; skipped++)
		if ((field = strchr(field + 1, ' ')) == NULL)
			return 0;
	*processor = atoi(field);
	return state;
}

static void look_at(pid_t thread)
{
	int processor;
	long long before = ran(thread), after = ran(thread);
	if (before < 0 || after < 0)
		return;
	if (after > before) {
		seen->runs++;
		return;
	}
	char state = state_of(thread, &processor);
	if (!state || processor == sched_getcpu())
		return;
	if (state == 'R')
		seen->waits++;
	else
		seen->sleeps++;
}

/* One of the processors that the process may use, a different one for each number. */
static void settle(int number)
{
	cpu_set_t usable, one;
	int processor = -1;
	pthread_getaffinity_np(pthread_self(), sizeof usable, &usable);
	for (number %= CPU_COUNT(&usable); number >= 0; number--)
		do
			processor++;
		while (!CPU_ISSET(processor, &usable));
	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

static void *watch(void *slot)
{
	/* The file begins on a page. */
	int number = (uintptr_t)slot % sysconf(_SC_PAGESIZE) / sizeof *seen;
	unsigned seed = 12345 + number;
	double last = now();
	struct sched_param priority = {PRIORITY};
	seen = slot;
	settle(number);
	prctl(PR_SET_NAME, "lockmeter");
	prctl(PR_SET_TIMERSLACK, 1000);
	seen->is_prompt = !pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
	for (;;) {
		seed = seed * 1103515245 + 12345;
		struct timespec pause = {0, PERIOD_NANOSECONDS / 2 + (seed >> 8) % PERIOD_NANOSECONDS};
		nanosleep(&pause, NULL);
		double moment = now();
		if (_Py_atomic_load_relaxed(&_PyRuntime.ceval.gil.locked) > 0) {
			pid_t thread = holder();
			seen->held += moment - last;
			if (thread)
				look_at(thread);
		}
		seen->watched += moment - last;
		last = moment;
	}
	return NULL;
}

static PyObject *start(PyObject *self, PyObject *arguments)
{
	const char *path;
	pthread_t thread;
	(void)self;
	if (!PyArg_ParseTuple(arguments, "s", &path))
		return NULL;
	int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (file < 0 || ftruncate(file, WATCHERS * sizeof *seen) < 0)
		return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
	void *memory = mmap(NULL, WATCHERS * sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (memory == MAP_FAILED)
		return PyErr_SetFromErrno(PyExc_OSError);
	for (int number = 0; number < WATCHERS; number++) {
		if (pthread_create(&thread, NULL, watch, (struct seen *)memory + number)) {
			PyErr_SetString(PyExc_RuntimeError, "no thread for the meter");
			return NULL;
		}
		pthread_detach(thread);
	}
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"start", start, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lockmeter", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_lockmeter(void)
{
	return PyModule_Create(&definition);
}
