/* Attached clients: who may come, what they send, what they are sent.
 *
 * Messages of a SOCK_SEQPACKET, the first byte says what it is (monitor.c lists them).  Nothing here blocks: a client
 * that does not read holds back the stream that it has not read, a container that does not read its input holds back
 * those who write to it, and nobody anything else. */

#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "monitor.h"

/* Milliseconds to wait for descriptors, and for a container that has been killed. */
#define PAUSE 1000
#define LEASH_PAUSE 200

struct client *add_client(struct monitor *m, int fd)
{
    for (struct client *client = m->clients; client < m->clients + MAX_CLIENTS; client++)
        if (client->fd < 0) {
            *client = (struct client){.fd = fd, .first = !m->had_client};
            for (int i = 0; i < STREAMS; i++)
                client->sent[i] = m->streams[i].size; /* Only what comes from now on. */
            m->had_client = true;
            return client;
        }
    close(fd);
    return NULL;
}

/* The socket's directory keeps others out already; this holds wherever the socket may have got to. */
static bool may_attach(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return false;
    return peer.uid == 0 || peer.uid == geteuid();
}

void accept_client(struct monitor *m)
{
    int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    m->accept_at = 0;
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        m->accept_at = now_ms() + PAUSE;
    else if (fd >= 0 && !may_attach(fd))
        close(fd);
    else if (fd >= 0)
        add_client(m, fd);
}

struct client *owner_of(struct monitor *m)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (m->clients[i].fd >= 0 && m->clients[i].owner)
            return &m->clients[i];
    return NULL;
}

/* ---- input ---- */

void close_input(struct monitor *m)
{
    m->pending = 0;
    m->input_ends = false;
    if (m->terminal)
        return; /* It is the output, too. */
    close_quietly(&m->input);
    m->input = -1;
}

void feed_input(struct monitor *m)
{
    ssize_t written = m->input < 0 ? 0 : write(m->input, m->message + m->pending_at, m->pending);
    if (written < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (m->input < 0 || written < 0) {
        close_input(m); /* Nobody will ever read it. */
        return;
    }
    m->pending_at += written;
    m->pending -= written;
    if (!m->pending && m->input_ends)
        close_input(m);
}

/* What the container has been sent before is still to reach it. */
static void end_input(struct monitor *m)
{
    m->input_ends = true;
    if (!m->pending)
        close_input(m);
}

static void resize(struct monitor *m, size_t size)
{
    uint16_t box[2];
    if (size != sizeof box || !m->terminal || m->input < 0)
        return;
    memcpy(box, m->message + 1, sizeof box);
    struct winsize window = {.ws_row = box[0], .ws_col = box[1]};
    ioctl(m->input, TIOCSWINSZ, &window);
}

/* ---- clients ---- */

/* Whoever the container was for has gone.  One that is frozen by a v1 freezer does not die of it: then Warren thaws it. */
static void end_leashed(struct monitor *m)
{
    kill(m->container, SIGKILL);
    strcpy(m->events.reason, "abandoned");
    m->events.due = now_ms() + LEASH_PAUSE;
}

void drop_client(struct monitor *m, struct client *client)
{
    char unread;
    /* Closing with something unread would reset the connection, and what the client has not read were lost to it. */
    while (recv(client->fd, &unread, 1, MSG_DONTWAIT) > 0)
        ;
    close(client->fd);
    client->fd = -1;
    if (client->first && m->flags & INPUT_ONCE)
        end_input(m);
    if (client->owner && m->flags & LEASH && m->container && !m->ended)
        end_leashed(m);
}

void take_message(struct monitor *m, struct client *client)
{
    ssize_t size = recv(client->fd, m->message, CHUNK + 1, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    m->untidy = true;
    if (size <= 0 || size > CHUNK + 1) {
        drop_client(m, client);
    } else if (*m->message == 'i') {
        m->pending_at = 1;
        m->pending = m->input < 0 || m->ended ? 0 : size - 1;
        if (m->pending)
            feed_input(m);
    } else if (*m->message == 'e') {
        if (client->first && m->flags & INPUT_ONCE)
            end_input(m);
    } else if (*m->message == 'w') {
        resize(m, size - 1);
    } else if (*m->message == 'c') {
        if (client->owner && size == 2)
            hang_up(m, m->message[1]);
    } else if (*m->message == 'k') {
        if (client->owner)
            m->flags &= ~LEASH;
    } else if (*m->message == 'd') {
        if (client->owner && m->ended) {
            m->cleaned_up = true;
            drop_client(m, client);
        }
    } else {
        drop_client(m, client);
    }
}

/* ---- output ---- */

static bool send_to(struct client *client, char kind, const void *data, size_t size)
{
    struct iovec parts[] = {{&kind, 1}, {(void *)data, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(client->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static bool must_wait(void)
{
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM;
}

/* It does not read any more; what it has written may be waiting still. */
static void write_off(struct monitor *m, struct client *client)
{
    for (int i = 0; i < STREAMS; i++)
        client->sent[i] = m->streams[i].size;
    client->told = m->ended;
}

bool owes(const struct monitor *m, const struct client *client)
{
    for (int i = 0; i < STREAMS; i++)
        if (!client->mute && client->sent[i] < m->streams[i].size)
            return true;
    return m->ended && !client->told;
}

bool held_back(const struct monitor *m, int stream)
{
    for (int i = 0; i < MAX_CLIENTS; i++)
        if (m->clients[i].fd >= 0 && !m->clients[i].mute && m->clients[i].sent[stream] < m->streams[stream].size)
            return true;
    return false;
}

/* False when it takes no more for now. */
static bool send_stream(struct client *client, int number, const struct stream *stream)
{
    while (client->sent[number] < stream->size) {
        size_t left = stream->size - client->sent[number], size = left < CHUNK ? left : CHUNK;
        if (!send_to(client, stream->kind, stream->data + client->sent[number], size))
            return false;
        client->sent[number] += size;
    }
    return true;
}

void deliver(struct monitor *m, struct client *client)
{
    uint32_t code = m->code;
    bool all = true;
    for (int i = 0; i < STREAMS && all && !client->mute; i++)
        all = send_stream(client, i, &m->streams[i]);
    if (all && m->ended && !client->told)
        all = client->told = send_to(client, 'x', &code, sizeof code);
    if (!all && !must_wait())
        write_off(m, client);
    if (client->told && !client->owner)
        drop_client(m, client);
}
