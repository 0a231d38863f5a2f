#include "cpu/threads.h"

#include <pthread.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace knet {
namespace {

using Mode = unsigned long long;

#if defined(__SSE2__)
constexpr Mode kModeBits = 0xE040;  // flush to zero, rounding, denormals are zero
Mode read_mode() { return _mm_getcsr(); }
void write_mode(Mode mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr Mode kModeBits = 0x3C80000;  // alternative half precision, default NaN, flush, rounding
Mode read_mode() {
  Mode mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void write_mode(Mode mode) { __asm__ __volatile__("msr fpcr, %0" : : "r"(mode)); }
#else
constexpr Mode kModeBits = 0;
Mode read_mode() { return 0; }
void write_mode(Mode) {}
#endif

bool forked = false;
void note_fork() { forked = true; }
const int registered = pthread_atfork(nullptr, nullptr, note_fork);

}  // namespace

StandardFloats::StandardFloats() : mode_(read_mode()) {
  if ((mode_ & kModeBits) != 0)
    write_mode(mode_ & ~kModeBits);
}

StandardFloats::~StandardFloats() {
  if ((mode_ & kModeBits) != 0)
    write_mode(mode_);
}

bool is_forked() { return forked && registered == 0; }

}  // namespace knet
