// A libnvrtc.so that compiles units with the system's C++ compiler and the kernels' emulator: what it calls a
// CUBIN is a shared object for the fake libcuda.so beside this file. FAKE_NVRTC_INCLUDE: where emulate.h is.
// FAKE_NVRTC_LOG: a file that gets a line per compilation.
#include <sys/stat.h>
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
  char dir[] = "/tmp/fake-nvrtc-XXXXXX";
  if (!mkdtemp(dir)) return COMPILATION;
  std::string base = dir, flags;
  for (int i = 0; i < n; i++) {
    const std::string option = options[i], define = "--define-macro=";
    if (option.rfind(define, 0) == 0) flags += " -D" + quoted(option.substr(define.size()));
  }
  { std::ofstream(base + "/unit.cpp") << program->source; }
  const char* compiler = getenv("CXX");
  const char* include = getenv("FAKE_NVRTC_INCLUDE");
  std::string command = std::string(compiler ? compiler : "c++") +
                        " -std=c++17 -O1 -shared -fPIC -w -fno-gnu-unique -DAMOEBA_EMULATE -I" +
                        quoted(include ? include : ".") + flags + " " + base + "/unit.cpp -o " + base +
                        "/unit.so > " + base + "/log 2>&1";
  int failed = system(command.c_str());
  program->log = read(base + "/log");
  program->code = read(base + "/unit.so");
  for (const char* file : {"/unit.cpp", "/unit.so", "/log"}) unlink((base + file).c_str());
  rmdir(dir);
  if (const char* path = getenv("FAKE_NVRTC_LOG"))
    std::ofstream(path, std::ios::app) << program->name << flags << "\n";
  return failed ? COMPILATION : OK;
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
