/* The commands `warren` and `warren-oci`: start python3 -I -S on our main module.
 *
 * pip drops the arguments of a script's "#!python -I -S", and an interpreter without them pays 5 ms and more for
 * site.  So the scripts are this program, installed unchanged.  It asks its own place, /proc/self/exe, for everything:
 * which command it is, which python3 is beside it, and where the package lies; not the environment, which engines
 * keep small and others could set. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STATEMENTS                                                                                                     \
	"import sys;sys.path.insert(0,sys.argv[1]);del sys.argv[:2];"                      \
	"from %s import main;main()"

static int exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* PREFIX/lib/python3.X/site-packages (or Debian's dist-packages) that has our package; 0 when there is none. */
static int find_site(const char *prefix, char *site)
{
	static const char *const libraries[] = {"lib", "local/lib", "lib64"};
	static const char *const names[] = {"site-packages", "dist-packages"};
	char path[PATH_MAX];

	for (unsigned i = 0; i < 3; i++) {
		struct dirent *entry;
		DIR *directory;

		snprintf(path, sizeof path, "%s/%s", prefix, libraries[i]);
		directory = opendir(path);
		while (directory && (entry = readdir(directory))) {
			if (strncmp(entry->d_name, "python3", 7))
				continue;
			for (unsigned j = 0; j < 2; j++) {
				snprintf(path, sizeof path, "%s/%s/%s/%s/runtime/oci.py", prefix, libraries[i],
					 entry->d_name, names[j]);
				if (exists(path)) {
					path[strlen(path) - strlen("/runtime/oci.py")] = '\0';
					strcpy(site, path);
					closedir(directory);
					return 1;
				}
			}
		}
		if (directory)
			closedir(directory);
	}
	return 0;
}

/* The interpreter beside us; a --user installation has none, and takes the system's. */
static const char *find_python(const char *bin, char *python)
{
	snprintf(python, PATH_MAX, "%s/python3", bin);
	return exists(python) ? python : "/usr/bin/python3";
}

int main(int argc, char **argv)
{
	static char self[PATH_MAX], bin[PATH_MAX], site[PATH_MAX], python[PATH_MAX], code[256];
	char *arguments[argc + 9], *name, *slash;
	ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
	int count = 0;

	if (size < 0) {
		fprintf(stderr, "warren: /proc is not mounted\n");
		return 125;
	}
	strcpy(bin, self);
	name = strrchr(self, '/') + 1;
	*strrchr(bin, '/') = '\0';
	slash = strrchr(bin, '/');
	*slash = '\0';
	if (!find_site(bin, site)) {
		fprintf(stderr, "%s: the package is not below %s/lib: install it again\n", name, bin);
		return 125;
	}
	*slash = '/';
	snprintf(code, sizeof code, STATEMENTS, strcmp(name, "warren-oci") ? "cli" : "runtime.oci");
	arguments[count++] = (char *)find_python(bin, python);
	arguments[count++] = "-I";
	arguments[count++] = "-S";
	arguments[count++] = "-c";
	arguments[count++] = code;
	arguments[count++] = site;
	arguments[count++] = name;
	for (int i = 1; i < argc; i++)
		arguments[count++] = argv[i];
	arguments[count] = NULL;
	execv(arguments[0], arguments);
	fprintf(stderr, "%s: cannot execute %s: %s\n", name, arguments[0], strerror(errno));
	return 125;
}
