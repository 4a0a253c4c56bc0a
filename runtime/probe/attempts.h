#ifndef ATTEMPTS_H
#define ATTEMPTS_H

int obey_attempt(const char *line);

#endif
