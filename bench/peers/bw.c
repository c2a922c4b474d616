// Read bandwidth: what this machine's memory delivers to 1..n pinned threads. Sums whole buffers in 64-byte
// vectors, several streams a thread. Prints best and median GB/s per size, threads and page size.
//
//   cc -O3 -march=native -pthread bw.c -o bw && ./bw [rounds] [most MiB]
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t vec __attribute__((vector_size(64)));

enum { MAX_THREADS = 256, STREAMS = 4, AHEAD = 8 /* vectors prefetched ahead in each stream */ };

struct job {
    const vec *data; // this thread's part
    size_t vectors;  // a multiple of 2 * STREAMS
    int streams;     // 1: one after another; otherwise STREAMS at once with software prefetch
    int passes;
    int cpu;
    uint64_t sum;
    pthread_barrier_t *gate;
};

static vec sum_plain(const vec *p, size_t n) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i + 4 <= n; i += 4) {
        a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    }
    return a + b + c + d;
}

static vec sum_streams(const vec *p, size_t n) {
    vec a[STREAMS] = {{0}};
    size_t part = n / STREAMS;
    for (size_t i = 0; i < part; i++) {
        for (int s = 0; s < STREAMS; s++) {
            __builtin_prefetch(p + s * part + i + AHEAD, 0, 0);
            a[s] += p[s * part + i];
        }
    }
    for (int s = 1; s < STREAMS; s++) a[0] += a[s];
    return a[0];
}

static void *run(void *arg) {
    struct job *job = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(job->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    pthread_barrier_wait(job->gate);
    vec sum = {0};
    for (int i = 0; i < job->passes; i++) {
        sum += job->streams == 1 ? sum_plain(job->data, job->vectors) : sum_streams(job->data, job->vectors);
        __asm__ volatile("" ::: "memory"); // each pass reads again
    }
    for (int i = 0; i < 8; i++) job->sum += sum[i];
    pthread_barrier_wait(job->gate);
    return NULL;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// GB/s of one measurement; the checksum keeps the reads alive.
static double measure(const void *buffer, size_t bytes, int threads, const int *cpus, int streams, uint64_t *sum) {
    struct job jobs[MAX_THREADS];
    pthread_t ids[MAX_THREADS];
    pthread_barrier_t gate;
    pthread_barrier_init(&gate, NULL, threads + 1);
    size_t each = bytes / threads / sizeof(vec) / (2 * STREAMS) * (2 * STREAMS);
    int passes = (int)((1ull << 31) / bytes) + 1;
    for (int i = 0; i < threads; i++) {
        jobs[i] = (struct job){(const vec *)buffer + i * each, each, streams, passes, cpus[i], 0, &gate};
        pthread_create(&ids[i], NULL, run, &jobs[i]);
    }
    pthread_barrier_wait(&gate);
    double start = now();
    pthread_barrier_wait(&gate);
    double seconds = now() - start;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        *sum += jobs[i].sum;
    }
    pthread_barrier_destroy(&gate);
    return (double)each * sizeof(vec) * threads * passes / seconds / 1e9;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 7;
    size_t most = argc > 2 ? (size_t)atol(argv[2]) : 2048;
    const size_t sizes[] = {64, 300, 2048};
    int cpus[MAX_THREADS], count = 0;
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && count < MAX_THREADS; i++) {
        if (CPU_ISSET(i, &set)) cpus[count++] = i;
    }
    if (rounds < 1 || count < 1) return 1;
    printf("%8s %8s %6s %8s %8s %8s\n", "MiB", "threads", "pages", "streams", "best", "median");
    double *samples = malloc(sizeof(double) * rounds);
    uint64_t sum = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        if (sizes[k] > most) continue;
        size_t bytes = sizes[k] << 20;
        for (int huge = 0; huge < 2; huge++) {
            char *buffer = aligned_alloc(2 << 20, bytes);
            if (!buffer) return 1;
            madvise(buffer, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
            for (size_t i = 0; i < bytes; i += 8) *(uint64_t *)(buffer + i) = i * 0x9e3779b97f4a7c15ull;
            for (int threads = 1; threads <= count; threads = threads < count && 2 * threads > count ? count : 2 * threads) {
                for (int streams = 1; streams <= STREAMS; streams += STREAMS - 1) {
                    for (int i = 0; i < rounds; i++) {
                        samples[i] = measure(buffer, bytes, threads, cpus, streams, &sum);
                    }
                    qsort(samples, rounds, sizeof *samples, by_value);
                    printf("%8zu %8d %6s %8d %8.1f %8.1f\n", sizes[k], threads, huge ? "huge" : "4k", streams,
                           samples[rounds - 1], samples[rounds / 2]);
                    fflush(stdout);
                }
            }
            free(buffer);
        }
    }
    printf("checksum %016llx\n", (unsigned long long)sum);
    return 0;
}
