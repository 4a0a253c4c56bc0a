/* The commands `warren` and `warren-oci`: start python3 -I -S on our main module.
 *
 * pip drops the arguments of a script's "#!python -I -S", and an interpreter without them pays 4 ms and more for
 * site.  So the scripts are this program, installed unchanged.  It asks its own place, /proc/self/exe, for everything:
 * which command it is, which python3 is beside it and where the package lies.  It never asks the environment, which
 * engines keep small and others could set, nor argv[0], which the caller chooses.  What it allocates, exec frees. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* sys.argv is "-c", the site directory, the command's name, and what the user gave.  A command makes little garbage and
 * ends soon; collecting it while modules load costs 1 ms.  Until main() takes care of it, SIGINT ends us as it ends
 * any program, where Python would print a traceback of an import. */
#define STATEMENTS                                                                                                     \
	"import gc,sys,_signal as s;"                                                                                  \
	"s.getsignal(2)==s.default_int_handler and s.signal(2,s.SIG_DFL);%s"                                           \
	"gc.disable();sys.path.insert(0,sys.argv[1]);del sys.argv[:2];from %s import main;main()"
#define UNBLOCK "s.pthread_sigmask(s.SIG_UNBLOCK,[2]);"

#define COUNT(array) (sizeof array / sizeof *array)

struct place {
	const char *bin;     /* the directory of this program */
	const char *prefix;  /* the directory above it; "" for / */
	const char *python;  /* the interpreter; its links stay unresolved, so that a venv's stays the venv's */
	const char *version; /* "python3.11", or "" where the interpreter's name does not tell */
	const char *site;    /* the directory that has runtime/ and cli.py */
};

static const char *text(const char *format, ...)
{
	va_list arguments;
	char *result;

	va_start(arguments, format);
	if (vasprintf(&result, format, arguments) < 0)
		_exit(125);
	va_end(arguments);
	return result;
}

static int is_version(const char *name)
{
	return !strncmp(name, "python3.", 8);
}

/* The interpreter beside us; an installation with --user has none, and takes the system's. */
static void find_python(struct place *place)
{
	const char *file;

	place->python = text("%s/python3", place->bin);
	if (access(place->python, X_OK))
		place->python = "/usr/bin/python3";
	file = realpath(place->python, NULL);
	file = file ? strrchr(file, '/') + 1 : "";
	place->version = is_version(file) ? file : "";
}

/* Whether LIBRARY/VERSION/site-packages, or Debian's dist-packages, has our package. */
static int has_package(struct place *place, const char *library, const char *version)
{
	static const char *const names[] = {"site-packages", "dist-packages"};

	for (unsigned i = 0; i < COUNT(names); i++) {
		place->site = text("%s/%s/%s/%s", place->prefix, library, version, names[i]);
		if (!access(text("%s/runtime/oci.py", place->site), F_OK))
			return 1;
	}
	return 0;
}

/* Look for the package under any other Python of this prefix. */
static int has_package_elsewhere(struct place *place, const char *library)
{
	DIR *directory = opendir(text("%s/%s", place->prefix, library));
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (is_version(entry->d_name) && has_package(place, library, entry->d_name)) {
			place->version = text("%s", entry->d_name);
			return 1;
		}
	return 0;
}

/* Take python3.X rather than python3 where there is one: the package was installed for that Python. */
static void prefer_version(struct place *place)
{
	const char *const bins[] = {place->bin, "/usr/local/bin", "/usr/bin"};

	for (unsigned i = 0; i < COUNT(bins); i++) {
		const char *python = text("%s/%s", bins[i], place->version);

		if (!access(python, X_OK)) {
			place->python = python;
			return;
		}
	}
}

/* The site directory is that of the interpreter's version, the one of Debian's own packages, or any that has us. */
static int find_site(struct place *place)
{
	static const char *const libraries[] = {"lib", "local/lib", "lib64"};

	for (unsigned i = 0; i < COUNT(libraries); i++)
		if (has_package(place, libraries[i], place->version) || has_package(place, libraries[i], "python3"))
			return 1;
	for (unsigned i = 0; i < COUNT(libraries); i++)
		if (has_package_elsewhere(place, libraries[i])) {
			prefer_version(place);
			return 1;
		}
	return 0;
}

/* Keep SIGINT waiting while the interpreter starts; the statement that lets it in, unless our caller keeps it out. */
static const char *block_interrupt(void)
{
	sigset_t interrupt, before;

	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, &before);
	return sigismember(&before, SIGINT) ? "" : UNBLOCK;
}

int main(int argc, char **argv)
{
	static char self[PATH_MAX];
	struct place place;
	char *name, *slash, **arguments = calloc(argc + 10, sizeof *arguments);
	int count = 0;

	if (!arguments || readlink("/proc/self/exe", self, sizeof self - 1) < 0) {
		fprintf(stderr, "warren: cannot read /proc/self/exe: %s\n", strerror(errno));
		return 125;
	}
	name = strrchr(self, '/');
	*name++ = '\0';
	place.bin = self;
	slash = strrchr(self, '/');
	place.prefix = slash ? text("%.*s", (int)(slash - self), self) : "";
	find_python(&place);
	if (!find_site(&place)) {
		fprintf(stderr, "%s: the package is not below %s/lib (install it again)\n", name, place.prefix);
		return 125;
	}

	arguments[count++] = (char *)place.python;
	arguments[count++] = "-I";
	arguments[count++] = "-S";
	/* Paths and JSON are UTF-8, whatever LANG says. */
	arguments[count++] = "-X";
	arguments[count++] = "utf8";
	arguments[count++] = "-c";
	arguments[count++] = (char *)text(STATEMENTS, block_interrupt(), strcmp(name, "warren-oci") ? "cli" : "runtime.oci");
	arguments[count++] = (char *)place.site;
	arguments[count++] = name;
	for (int i = 1; i < argc; i++)
		arguments[count++] = argv[i];
	execv(place.python, arguments);
	fprintf(stderr, "%s: cannot execute %s: %s\n", name, place.python, strerror(errno));
	return 125;
}
