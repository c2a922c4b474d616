// A libnvrtc.so that compiles units with the system's C++ compiler and the kernels' emulator: what it calls a
// CUBIN is a shared object for the fake libcuda.so beside this file. FAKE_NVRTC_INCLUDE: where emulate.h is.
// FAKE_NVRTC_UNITS: a folder where units are kept, so that a second program need not build them again.
// FAKE_NVRTC_LOG: a file that gets a line per compilation, of kept units too.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

typedef int Result;
enum { OK = 0, COMPILATION = 6 };
struct Program {
  std::string source, name, log, code;
};

static std::string read(const std::string& path) {
  std::ifstream f(path, std::ios::binary);
  std::stringstream s;
  s << f.rdbuf();
  return s.str();
}
static std::string setting(const char* name, const char* otherwise) {
  const char* value = getenv(name);
  return value ? value : otherwise;
}
static std::string quoted(const std::string& s) {
  std::string q = "'";
  for (char c : s) q += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return q + "'";
}

extern "C" {
Result nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return OK;
}
Result nvrtcCreateProgram(void** p, const char* source, const char* name, int, const char* const*,
                          const char* const*) {
  *p = new Program{source, name ? name : "unit", "", ""};
  return OK;
}
Result nvrtcDestroyProgram(void** p) {
  delete (Program*)*p;
  *p = nullptr;
  return OK;
}
Result nvrtcCompileProgram(void* p, int n, const char* const* options) {
  auto program = (Program*)p;
  std::string flags;
  for (int i = 0; i < n; i++) {
    const std::string option = options[i], define = "--define-macro=";
    if (option.rfind(define, 0) == 0) flags += " -D" + quoted(option.substr(define.size()));
  }
  if (const char* path = getenv("FAKE_NVRTC_LOG"))
    std::ofstream(path, std::ios::app) << program->name << flags << "\n";
  const std::string folder = setting("FAKE_NVRTC_UNITS", "/tmp");
  const std::string command =
      setting("CXX", "c++") +
      " -std=c++17 -nostdinc++ -Og -shared -fPIC -w -fno-gnu-unique -DAMOEBA_EMULATE -I" +
      quoted(setting("FAKE_NVRTC_INCLUDE", ".")) + flags;
  const size_t key = std::hash<std::string>()(command + program->source);
  const std::string base = folder + "/unit-" + std::to_string(key), unit = base + ".so";
  // One process builds a unit, the others wait for it.
  int turn = open((base + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (turn < 0 || flock(turn, LOCK_EX)) return COMPILATION;
  if (access(unit.c_str(), R_OK)) {
    { std::ofstream(base + ".cpp") << program->source; }
    system((command + " " + base + ".cpp -o " + base + ".tmp > " + base + ".log 2>&1").c_str());
    program->log = read(base + ".log");
    rename((base + ".tmp").c_str(), unit.c_str());
    for (const char* file : {".cpp", ".log"}) unlink((base + file).c_str());
  }
  close(turn);
  program->code = read(unit);
  return program->code.empty() ? COMPILATION : OK;
}
Result nvrtcGetProgramLogSize(void* p, size_t* n) {
  *n = ((Program*)p)->log.size() + 1;
  return OK;
}
Result nvrtcGetProgramLog(void* p, char* s) {
  strcpy(s, ((Program*)p)->log.c_str());
  return OK;
}
Result nvrtcGetCUBINSize(void* p, size_t* n) {
  *n = ((Program*)p)->code.size();
  return OK;
}
Result nvrtcGetCUBIN(void* p, char* s) {
  auto& code = ((Program*)p)->code;
  memcpy(s, code.data(), code.size());
  return OK;
}
const char* nvrtcGetErrorString(Result) { return "said by the fake compiler"; }
}
