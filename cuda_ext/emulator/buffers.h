// Guarded buffers in pairs: what the CPU writes to, and what the emulated GPU writes to.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

#include "core/launchers.h"

namespace {

using namespace knet;

constexpr int64_t kGuardBytes = 64;

std::mt19937_64 generator;

int64_t draw(int64_t first, int64_t last) {
  return std::uniform_int_distribution<int64_t>(first, last)(generator);
}

int64_t bytes_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

// `count` items in a buffer with guards, after `offset` items from a 256-byte boundary.
template <class T>
class Buffer {
 public:
  Buffer(int64_t count, int64_t offset, int64_t item_bytes = sizeof(T))
      : count_(count * item_bytes),
        begin_(kGuardBytes + offset * item_bytes),
        size_((begin_ + count_ + kGuardBytes + 255) / 256 * 256),
        memory_(static_cast<uint8_t*>(aligned_alloc(256, static_cast<size_t>(size_))), free) {
    memset(memory_.get(), 0x5A, static_cast<size_t>(size_));
  }
  T* get() const { return reinterpret_cast<T*>(memory_.get() + begin_); }
  uint8_t* bytes() const { return memory_.get() + begin_; }
  int64_t num_bytes() const { return count_; }
  bool same(const Buffer& other) const {
    return memcmp(memory_.get(), other.memory_.get(), static_cast<size_t>(size_)) == 0;
  }
  void fill_random() const {
    for (int64_t i = 0; i < count_; ++i) bytes()[i] = static_cast<uint8_t>(generator());
  }

 private:
  int64_t count_, begin_, size_;
  std::unique_ptr<uint8_t, void (*)(void*)> memory_;
};

// What the CPU writes to and what the emulated GPU writes to.
template <class T>
struct Pair {
  Pair(int64_t count, int64_t offset, int64_t item_bytes = sizeof(T))
      : cpu(count, offset, item_bytes), gpu(count, offset, item_bytes) {}
  Buffer<T> cpu, gpu;
};

template <class T>
void expect_same(const Pair<T>& pair, const char* what) {
  if (pair.cpu.same(pair.gpu))
    return;
  std::fprintf(stderr, "compare: %s differs from the CPU's\n", what);
  std::exit(1);
}

void expect_launched(const char* error) {
  if (error != nullptr) {
    std::fprintf(stderr, "compare: %s\n", error);
    std::exit(1);
  }
}

}  // namespace
