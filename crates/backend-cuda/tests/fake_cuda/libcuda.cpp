// A libcuda.so without a GPU: enough of the driver API that the host code runs on it unmodified. (Not
// libcuda.so.1: an NVRTC looks into a library of that name.) "Machine code" is a shared object that the fake
// NVRTC beside this file made of a unit's source with the kernels' emulator, so kernels really run, on the
// CPU. Streams run at once and in order; capture keeps closures. The rules that bite on hardware are errors
// here too: copies out of bounds, calls that a capture forbids, too much shared memory, a launch that may
// overlap with what is no kernel, a launch without a context, memory that was freed.
//
// FAKE_CUDA_MEMORY: bytes of device memory. FAKE_CUDA_DEVICES: how many. FAKE_CUDA_LOG: a file that gets a
// line per launch and per context taken. FAKE_CUDA_FAIL: a kernel whose launches fail. FAKE_CUDA_VERSION:
// of the driver.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

typedef int Result;
typedef uint32_t u32;
typedef uint64_t u64;
constexpr int OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101;
constexpr int INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719;
constexpr int COOPERATIVE_LAUNCH_TOO_LARGE = 720, CAPTURE_UNSUPPORTED = 900;
enum { WARP = 10, MAJOR = 75, MINOR = 76, MANAGED = 89, PROCESSORS = 16, SHARED_MAX = 232448 };

typedef int (*EmuLaunch)(const char*, const u32*, u32, u32, const void*);
typedef u32 (*EmuArgs)(const char*);
struct Module {
  int file;
  void* library;
  EmuLaunch launch;
  EmuArgs args;
  std::map<std::string, struct Function*> functions;
};
struct Function { Module* module; std::string name; u32 args; int dynamic_max; };
typedef std::vector<std::function<Result()>> Graph;
// `after_kernel`: the last thing put there was a kernel.
struct Stream { Graph* capture; bool after_kernel; };

static std::recursive_mutex lock_;
static std::map<u64, size_t> live;   // device pieces by address
static std::map<u64, size_t> pinned; // host pieces by address
static size_t used;
static Result sticky;              // after a failed kernel everything fails, as on a device
static thread_local void* current; // the context of this thread
static int context_;               // its address is the context
#define LOCK std::lock_guard<std::recursive_mutex> guard(lock_)
#define CONTEXT \
  do { if (current != &context_) return INVALID_CONTEXT; if (sticky) return sticky; } while (0)

static u64 number(const char* name, u64 otherwise) {
  return getenv(name) ? strtoull(getenv(name), nullptr, 10) : otherwise;
}
static u64 memory() { return number("FAKE_CUDA_MEMORY", u64(4) << 30); }
static bool inside(std::map<u64, size_t>& pieces, u64 p, size_t n) {
  auto i = pieces.upper_bound(p);
  return i != pieces.begin() && (--i, p + n <= i->first + i->second);
}
static Result act(void* stream, std::function<Result()> f, bool kernel = false) {
  if (stream) ((Stream*)stream)->after_kernel = kernel;
  if (stream && ((Stream*)stream)->capture) {
    ((Stream*)stream)->capture->push_back(std::move(f));
    return OK;
  }
  return f();
}
static bool capturing(void* stream) { return stream && ((Stream*)stream)->capture; }
static void log_(const std::string& line) {
  const char* path = getenv("FAKE_CUDA_LOG");
  if (FILE* f = path ? fopen(path, "a") : nullptr) fputs((line + "\n").c_str(), f), fclose(f);
}

// Bytes of a shared object: its section headers come last.
static size_t elf_len(const void* image) {
  auto e = (const Elf64_Ehdr*)image;
  return e->e_shoff + size_t(e->e_shnum) * e->e_shentsize;
}

static Result launch(Function* f, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void* stream,
                     void** p, bool overlapping) {
  CONTEXT;
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || by != 1 || bz != 1 || bx > 1024 ||
      int(shared) > f->dynamic_max)
    return INVALID_VALUE;
  if (overlapping && !((Stream*)stream)->after_kernel) return INVALID_VALUE;
  std::vector<u64> args((f->args + 7) / 8 + 1);
  memcpy(args.data(), p[0], f->args);
  return act(
      stream,
      [=]() -> Result {
        log_("launch " + f->name + (overlapping ? " overlapping" : ""));
        const char* fail = getenv("FAKE_CUDA_FAIL");
        u32 grid[3] = {gx, gy, gz};
        alignas(16) char copy[4096];
        memcpy(copy, args.data(), f->args);
        if ((fail && f->name == fail) || f->module->launch(f->name.c_str(), grid, bx, shared, copy))
          return sticky = LAUNCH_FAILED;
        return OK;
      },
      true);
}

// As cuda.h has them.
struct Attribute {
  u32 id, pad;
  union {
    int programmatic, cooperative;
    char bytes[64];
  } value;
};
struct Config {
  u32 gx, gy, gz, bx, by, bz, shared;
  void* stream;
  const Attribute* attributes;
  u32 count;
};
constexpr u32 PROCESSOR_COUNT = 4;
enum { COOPERATIVE = 2, PROGRAMMATIC_STREAM_SERIALIZATION = 6 };

extern "C" {
Result cuInit(u32) { return number("FAKE_CUDA_DEVICES", 1) ? OK : NO_DEVICE; }
Result cuDriverGetVersion(int* v) {
  *v = int(number("FAKE_CUDA_VERSION", 13000));
  return OK;
}
Result cuDeviceGetCount(int* n) {
  *n = int(number("FAKE_CUDA_DEVICES", 1));
  return OK;
}
Result cuDeviceGet(int* d, int i) {
  *d = i;
  return i < int(number("FAKE_CUDA_DEVICES", 1)) ? OK : INVALID_DEVICE;
}
Result cuDeviceGetName(char* s, int n, int) {
  snprintf(s, n, "fibers");
  return OK;
}
Result cuDeviceTotalMem_v2(size_t* n, int) {
  *n = memory();
  return OK;
}
Result cuDeviceGetAttribute(int* v, int a, int) {
  *v = a == MAJOR        ? int(number("FAKE_CUDA_MAJOR", 9))
       : a == MINOR      ? 0
       : a == PROCESSORS ? int(PROCESSOR_COUNT)
       : a == WARP       ? 32
       : a == MANAGED    ? 1
                         : 0;
  return OK;
}
Result cuDevicePrimaryCtxRetain(void** c, int) {
  log_("context");
  *c = &context_;
  return OK;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxGetCurrent(void** c) {
  *c = current;
  return OK;
}
Result cuCtxSetCurrent(void* c) {
  current = c;
  return OK;
}
Result cuCtxSynchronize() { return OK; }
Result cuMemGetInfo_v2(size_t* f, size_t* t) {
  LOCK;
  CONTEXT;
  *t = memory();
  *f = memory() - used;
  return OK;
}
Result cuStreamCreate(void** s, u32) {
  CONTEXT;
  *s = new Stream{nullptr, false};
  return OK;
}
Result cuStreamDestroy_v2(void* s) {
  delete (Stream*)s;
  return OK;
}
Result cuStreamSynchronize(void* s) {
  CONTEXT;
  return capturing(s) ? CAPTURE_UNSUPPORTED : OK;
}
Result cuStreamWaitEvent(void*, void*, u32) { return OK; }
Result cuEventCreate(void** e, u32) {
  CONTEXT;
  *e = malloc(1);
  return OK;
}
Result cuEventRecord(void*, void* s) {
  CONTEXT;
  return capturing(s) ? CAPTURE_UNSUPPORTED : OK;
}
Result cuEventSynchronize(void*) {
  CONTEXT;
  return OK;
}
Result cuEventDestroy_v2(void* e) {
  free(e);
  return OK;
}
Result cuMemAlloc_v2(u64* p, size_t n) {
  LOCK;
  CONTEXT;
  if (!n) return INVALID_VALUE;
  if (used + n > memory()) return OUT_OF_MEMORY;
  *p = (u64)aligned_alloc(256, (n + 255) / 256 * 256);
  memset((void*)*p, 0xff, n); // NaN wherever nothing was written
  live[*p] = n;
  used += n;
  return OK;
}
Result cuMemAllocManaged(u64* p, size_t n, u32) { return cuMemAlloc_v2(p, n); }
Result cuMemFree_v2(u64 p) {
  LOCK;
  auto i = live.find(p);
  if (i == live.end()) return INVALID_VALUE;
  used -= i->second;
  live.erase(i);
  free((void*)p);
  return OK;
}
Result cuMemHostAlloc(void** p, size_t n, u32) {
  LOCK;
  CONTEXT;
  *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  memset(*p, 0xff, n);
  pinned[(u64)*p] = n;
  return OK;
}
Result cuMemFreeHost(void* p) {
  LOCK;
  if (!pinned.erase((u64)p)) return INVALID_VALUE;
  free(p);
  return OK;
}
Result cuMemsetD8Async(u64 d, unsigned char v, size_t n, void* s) {
  LOCK;
  CONTEXT;
  if (!inside(live, d, n)) return INVALID_VALUE;
  return act(s, [=] {
    memset((void*)d, v, n);
    return OK;
  });
}
Result cuMemcpyHtoDAsync_v2(u64 d, const void* h, size_t n, void* s) {
  LOCK;
  CONTEXT;
  if (!inside(live, d, n) || !inside(pinned, (u64)h, n)) return INVALID_VALUE;
  return act(s, [=] {
    memcpy((void*)d, h, n);
    return OK;
  });
}
Result cuMemcpyDtoHAsync_v2(void* h, u64 d, size_t n, void* s) {
  LOCK;
  CONTEXT;
  if (!inside(live, d, n) || !inside(pinned, (u64)h, n)) return INVALID_VALUE;
  return act(s, [=] {
    memcpy(h, (void*)d, n);
    return OK;
  });
}
Result cuModuleLoadData(void** m, const void* image) {
  LOCK;
  CONTEXT;
  if (memcmp(image, ELFMAG, SELFMAG)) return INVALID_IMAGE;
  // Open as long as the module: the loader takes another file of the same name for one it has.
  int fd = memfd_create("module", 0);
  size_t len = elf_len(image);
  if (fd < 0 || write(fd, image, len) != ssize_t(len)) return INVALID_IMAGE;
  void* library = dlopen(("/proc/self/fd/" + std::to_string(fd)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "fake libcuda: %s\n", dlerror());
    return INVALID_IMAGE;
  }
  auto launch = (EmuLaunch)dlsym(library, "emu_launch");
  auto args = (EmuArgs)dlsym(library, "emu_args_size");
  if (!launch || !args) return INVALID_IMAGE;
  *m = new Module{fd, library, launch, args, {}};
  return OK;
}
Result cuModuleUnload(void* m) {
  LOCK;
  auto module = (Module*)m;
  for (auto& f : module->functions) delete f.second;
  dlclose(module->library);
  close(module->file);
  delete module;
  return OK;
}
Result cuModuleGetFunction(void** f, void* m, const char* n) {
  LOCK;
  CONTEXT;
  auto module = (Module*)m;
  u32 args = module->args(n);
  if (!args) return NOT_FOUND;
  Function*& known = module->functions[n];
  if (!known) known = new Function{module, n, args, 49152};
  *f = known;
  return OK;
}
Result cuFuncGetParamInfo(void* f, size_t i, size_t* offset, size_t* size) {
  if (i) return INVALID_VALUE;
  *offset = 0;
  *size = ((Function*)f)->args;
  return OK;
}
Result cuFuncSetAttribute(void* f, int a, int v) {
  if (a == 9 && v <= 100) return OK;
  if (a != 8 || v > SHARED_MAX) return INVALID_VALUE;
  ((Function*)f)->dynamic_max = v;
  return OK;
}
Result cuLaunchKernelEx(const Config* c, void* f, void** p, void**) {
  LOCK;
  bool overlapping = false;
  for (u32 i = 0; i < c->count; i++) {
    if (c->attributes[i].id == COOPERATIVE) {
      if (c->gx * c->gy * c->gz > PROCESSOR_COUNT) return COOPERATIVE_LAUNCH_TOO_LARGE;
      continue;
    }
    if (c->attributes[i].id != PROGRAMMATIC_STREAM_SERIALIZATION || number("FAKE_CUDA_MAJOR", 9) < 9)
      return INVALID_VALUE;
    overlapping = c->attributes[i].value.programmatic;
  }
  return launch((Function*)f, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, p, overlapping);
}
Result cuStreamBeginCapture_v2(void* s, int) {
  LOCK;
  CONTEXT;
  if (capturing(s)) return CAPTURE_UNSUPPORTED;
  ((Stream*)s)->capture = new Graph;
  ((Stream*)s)->after_kernel = false;
  return OK;
}
Result cuStreamEndCapture(void* s, void** g) {
  LOCK;
  CONTEXT;
  if (!capturing(s)) return CAPTURE_UNSUPPORTED;
  *g = ((Stream*)s)->capture;
  ((Stream*)s)->capture = nullptr;
  ((Stream*)s)->after_kernel = false;
  return OK;
}
Result cuGraphInstantiateWithFlags(void** e, void* g, u64) {
  CONTEXT;
  *e = new Graph(*(Graph*)g);
  return OK;
}
Result cuGraphUpload(void*, void*) {
  CONTEXT;
  return OK;
}
Result cuGraphLaunch(void* e, void* s) {
  LOCK;
  CONTEXT;
  if (capturing(s)) return CAPTURE_UNSUPPORTED;
  ((Stream*)s)->after_kernel = false;
  log_("graph " + std::to_string(((Graph*)e)->size()));
  for (auto& f : *(Graph*)e)
    if (Result r = f()) return r;
  return OK;
}
Result cuGraphDestroy(void* g) {
  delete (Graph*)g;
  return OK;
}
Result cuGraphExecDestroy(void* g) {
  delete (Graph*)g;
  return OK;
}
Result cuGetErrorName(Result e, const char** s) {
  static std::map<Result, const char*> names = {
      {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
      {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
      {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
      {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
      {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
      {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
      {COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"},
      {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  auto i = names.find(e);
  *s = i == names.end() ? "CUDA_ERROR_UNKNOWN" : i->second;
  return OK;
}
Result cuGetErrorString(Result e, const char** s) {
  *s = e == LAUNCH_FAILED ? "unspecified launch failure" : "said by the fake driver";
  return OK;
}
}
