/* How long the interpreter's lock is held: CPython 3.11 only, whose runtime says so in
 * _PyRuntime.ceval.gil.locked.
 *
 * A thread that never takes the lock looks at random moments, so that what it adds up is wall time
 * with the lock taken, whoever has it. Tools that stop the process to look overstate it, as a
 * thread that waits in the kernel with the lock given back looks the same to them. What was seen
 * lies in a file as two doubles, seconds with the lock taken and seconds watched, which others map
 * without asking the process.
 */
#define Py_BUILD_CORE 1
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "internal/pycore_runtime.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#if PY_VERSION_HEX < 0x030B0000 || PY_VERSION_HEX >= 0x030C0000
#error "the lock of another CPython than 3.11 lies elsewhere"
#endif

/* A millisecond apart on average: 1,000 looks a second, each some microseconds of a core. */
#define PERIOD_NANOSECONDS 1000000

static volatile double *seen;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec * 1e-9;
}

static void *watch(void *unused)
{
	unsigned seed = 12345;
	double last = now();
	(void)unused;
	prctl(PR_SET_NAME, "lockmeter");
	prctl(PR_SET_TIMERSLACK, 1000);
	for (;;) {
		seed = seed * 1103515245 + 12345;
		struct timespec pause = {0, PERIOD_NANOSECONDS / 2 + (seed >> 8) % PERIOD_NANOSECONDS};
		nanosleep(&pause, NULL);
		double moment = now();
		if (_Py_atomic_load_relaxed(&_PyRuntime.ceval.gil.locked) > 0)
			seen[0] += moment - last;
		seen[1] += moment - last;
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
	if (file < 0 || ftruncate(file, 2 * sizeof(double)) < 0)
		return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
	void *memory = mmap(NULL, 2 * sizeof(double), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (memory == MAP_FAILED)
		return PyErr_SetFromErrno(PyExc_OSError);
	seen = memory;
	if (pthread_create(&thread, NULL, watch, NULL)) {
		PyErr_SetString(PyExc_RuntimeError, "no thread for the meter");
		return NULL;
	}
	pthread_detach(thread);
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"start", start, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lockmeter", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_lockmeter(void)
{
	return PyModule_Create(&definition);
}
