// Digits of a small base in 64-bit words: the levels codec, and the words path B sums.
//
// A thread owns two adjacent words, one 16-byte access; more would leave too few threads for a
// tensor of usual size. Sixteen threads share the 64 contiguous bytes of each row of values.
#include "cuda/common.cuh"

namespace {

using knet::kLevelWords;

constexpr int kPair = 2;
constexpr int kPairs = kLevelWords / kPair;

// Where a thread's words and values lie; digit d of its words is at value + d * kLevelWords.
struct PairPlace {
  KNET_DEVICE explicit PairPlace(const knet::Digits& a) {
    const int64_t block = global_thread() / kPairs;
    const int in_block = static_cast<int>(threadIdx.x % kPairs) * kPair;
    word = block * kLevelWords + in_block;
    value = block * kLevelWords * a.num_digits + in_block;
    exists = block * kLevelWords * a.num_digits < a.num_values;
    whole = (block + 1) * kLevelWords * a.num_digits <= a.num_values;
  }
  int64_t word, value;
  bool exists, whole;
};

// Horner's rule from the last digit down.
template <bool kWhole>
KNET_DEVICE Run<uint64_t, kPair> pack_words(const knet::PackArgs& a, int64_t first) {
  Run<uint64_t, kPair> words = {};
#pragma unroll 8  // loads in flight
  for (int digit = a.num_digits - 1; digit >= 0; --digit) {
    const int64_t at = first + static_cast<int64_t>(digit) * kLevelWords;
    const auto values = kWhole ? load_run<int16_t, kPair>(a.values + at)
                               : load_ragged<int16_t, kPair>(a.values, at, a.num_values);
#pragma unroll
    for (int i = 0; i < kPair; ++i) {
      const bool present = kWhole || at + i < a.num_values;
      const uint32_t next = present ? static_cast<uint32_t>(values.value[i] + a.offset) : 0;
      words.value[i] = words.value[i] * a.base + next;
    }
  }
  return words;
}

__global__ void __launch_bounds__(kThreads) pack_kernel(const knet::PackArgs a, int64_t num_words,
                                                        bool values_aligned, bool words_aligned) {
  const PairPlace place(a);
  if (!place.exists)
    return;
  const auto words = values_aligned && place.whole ? pack_words<true>(a, place.value)
                                                   : pack_words<false>(a, place.value);
  store_run(words, a.words, place.word, num_words, words_aligned);
}

// Divisors known at launch, as multiplications: a word by limb_base, a limb (below 2^31) by base.
struct Divisors {
  explicit Divisors(uint32_t base) : limb_digits(knet::limb_digits(base)), limb_base(1), shift(0) {
    for (int i = 0; i < limb_digits; ++i) limb_base *= base;
    limb_factor = ~0ull / limb_base;
    while ((1u << shift) < base) ++shift;
    --shift;  // __umulhi has shifted by 32, and limbs need 31 bits
    factor = static_cast<uint32_t>((1ull << (32 + shift)) / base + 1);
  }
  // Cuts the lowest limb off a word. The quotient by the rounded factor is at most one too small.
  KNET_DEVICE uint32_t cut_limb(uint64_t& word) const {
    uint64_t quotient = __umul64hi(word, limb_factor);
    uint32_t limb = static_cast<uint32_t>(word) - static_cast<uint32_t>(quotient) * limb_base;
    if (limb >= limb_base) {
      ++quotient;
      limb -= limb_base;
    }
    word = quotient;
    return limb;
  }
  KNET_DEVICE uint32_t divide(uint32_t limb) const { return __umulhi(limb, factor) >> shift; }
  int limb_digits;
  uint32_t limb_base, factor;
  int shift;
  uint64_t limb_factor;
};

__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const knet::UnpackArgs a, const Divisors divisors, int64_t num_words,
                  bool values_aligned, bool words_aligned) {
  const PairPlace place(a);
  if (!place.exists)
    return;
  auto words = words_aligned ? load_run<uint64_t, kPair>(a.words + place.word)
                             : load_ragged<uint64_t, kPair>(a.words, place.word, num_words);
  for (int digit = 0; digit < a.num_digits;) {
    uint32_t limbs[kPair];
#pragma unroll
    for (int i = 0; i < kPair; ++i) limbs[i] = divisors.cut_limb(words.value[i]);
    const int end = min(a.num_digits, digit + divisors.limb_digits);
    for (; digit < end; ++digit) {
      Run<int16_t, kPair> run;
#pragma unroll
      for (int i = 0; i < kPair; ++i) {
        const uint32_t quotient = divisors.divide(limbs[i]);
        run.value[i] =
            static_cast<int16_t>(static_cast<int32_t>(limbs[i] - quotient * a.base) - a.offset);
        limbs[i] = quotient;
      }
      const int64_t at = place.value + static_cast<int64_t>(digit) * kLevelWords;
      store_run(run, a.values, at, a.num_values, values_aligned);
    }
  }
}

int64_t count_blocks(int64_t num_words) { return knet::ceil_div(num_words / kPair, kThreads); }

int64_t count_words(const knet::Digits& a) {
  return knet::ceil_div(a.num_values, static_cast<int64_t>(kLevelWords) * a.num_digits) *
         kLevelWords;
}

}  // namespace

const char* knet::pack_digits_cuda(const PackArgs& a, void* stream) {
  const int64_t words = count_words(a);
  return launch(pack_kernel, count_blocks(words), kThreads, stream, a, words,
                is_aligned(a.values, 4), is_aligned(a.words, 16));
}

const char* knet::unpack_digits_cuda(const UnpackArgs& a, void* stream) {
  const int64_t words = count_words(a);
  return launch(unpack_kernel, count_blocks(words), kThreads, stream, a, Divisors(a.base), words,
                is_aligned(a.values, 4), is_aligned(a.words, 16));
}
