// What a thread needs before it runs a CPU kernel.
#pragma once

namespace knet {

// While it lives, this thread rounds to nearest and keeps subnormal numbers, as the kernels' bits
// ask for, whatever mode the caller set (torch.set_flush_denormal is a thread's own).
class StandardFloats {
 public:
  StandardFloats();
  ~StandardFloats();
  StandardFloats(const StandardFloats&) = delete;
  StandardFloats& operator=(const StandardFloats&) = delete;

 private:
  unsigned long long mode_;
};

// Whether this process was forked after the library was loaded. The threads of its OpenMP pool then
// exist in its parent only, and a parallel region would wait for them for ever.
bool is_forked();

}  // namespace knet
