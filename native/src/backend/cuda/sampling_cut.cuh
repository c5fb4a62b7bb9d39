// What may be drawn of a row, and the drawing, by one block.
#pragma once

#include "sampling.cuh"

namespace tempora::device {

constexpr int kThreads = 1024;
constexpr int kTile = kThreads * kVectorFloats;  // logits that the block loads at once
constexpr int kBatch = 4;                        // loads under way in each thread
constexpr int kPiece = kWarp * kVectorFloats;    // logits that a warp loads at once
constexpr int kDigits = 256;                     // values of eight bits of a rank

// Calls visit(logit, id) for the block's share of the tokens in [begin, end), which begins at a whole vector.
template <typename Visit>
__device__ void for_tokens(const SampledRow& row, int begin, int end, Visit visit) {
  for (int tile = begin; tile < end; tile += kBatch * kTile) {
    FourFloats fours[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) fours[i] = row.four(tile + i * kTile + threadIdx.x * kVectorFloats);
#pragma unroll
    for (int i = 0; i < kBatch * kVectorFloats; ++i) {
      const int id = tile + i / 4 * kTile + threadIdx.x * kVectorFloats + i % 4;
      if (id < end) visit(fours[i / 4].at[i % 4], id);
    }
  }
}

struct Scratch {
  Mass scan[2][kThreads];
  Rank ranks[kThreads];
  Mass terms[kThreads];
  std::uint32_t low[kDigits], high[kDigits];
  std::uint32_t members;
  int bin, digit, token;
  Mass wanted;
  Rank cut;
};

// The sum of the values of the threads up to this one; total: of all.
__device__ inline Mass running_sum(Scratch& scratch, Mass value, Mass* total) {
  __syncthreads();
  scratch.scan[0][threadIdx.x] = value;
  int from = 0;
  for (int offset = 1; offset < kThreads; offset *= 2) {
    __syncthreads();
    const bool adds = static_cast<int>(threadIdx.x) >= offset;
    scratch.scan[1 - from][threadIdx.x] =
        scratch.scan[from][threadIdx.x] + (adds ? scratch.scan[from][threadIdx.x - offset] : 0);
    from = 1 - from;
  }
  __syncthreads();
  *total = scratch.scan[from][kThreads - 1];
  return scratch.scan[from][threadIdx.x];
}

// The lowest rank that is kept where tokens are kept from the likeliest down until their terms reach `wanted`.
struct CutSearch {
  const SampledRow& row;
  Scratch& scratch;
  bool by_mass;  // the terms are masses, or else 1

  __device__ Mass term(float logit) const { return by_mass ? row.mass(logit) : 1; }

  // Where the terms of a thread, which come after those of the threads before it, reach what is wanted.
  __device__ bool reaches(Mass running, Mass own) const {
    return running - own < scratch.wanted && scratch.wanted <= running;
  }

  // Those of the bin whose rank starts with `prefix`; the list has them where they are no more than threads.
  __device__ void gather(Rank prefix, int shift) const {
    if (threadIdx.x == 0) scratch.members = 0;
    __syncthreads();
    for_tokens(row, 0, row.vocabulary, [&](float logit, int id) {
      const Rank rank = rank_of(logit, id);
      if (row.bin(logit) != scratch.bin || (shift < 64 && rank >> shift != prefix)) return;
      const std::uint32_t at = atomicAdd(&scratch.members, 1u);
      if (at >= kThreads) return;
      scratch.ranks[at] = rank;
      scratch.terms[at] = term(logit);
    });
    __syncthreads();
  }

  // The next eight bits of the rank.
  __device__ Rank next_digit(Rank prefix, int shift) const {
    if (threadIdx.x < kDigits) scratch.low[threadIdx.x] = scratch.high[threadIdx.x] = 0;
    __syncthreads();
    const MassHistogram sums{scratch.low, scratch.high};
    for_tokens(row, 0, row.vocabulary, [&](float logit, int id) {
      const Rank rank = rank_of(logit, id);
      if (row.bin(logit) != scratch.bin || (shift < 56 && rank >> (shift + 8) != prefix)) return;
      sums.add(static_cast<int>(rank >> shift & (kDigits - 1)), term(logit));
    });
    __syncthreads();
    if (threadIdx.x == 0) {
      scratch.digit = kDigits - 1;
      for (Mass sum; (sum = sums.sum(scratch.digit)) < scratch.wanted; --scratch.digit) scratch.wanted -= sum;
    }
    __syncthreads();
    return prefix << 8 | static_cast<Rank>(scratch.digit);
  }

  // By scratch.bin and scratch.wanted, which counts from the bin's likeliest.
  __device__ Rank in_bin() const {
    Rank prefix = 0;
    int shift = 64;
    for (gather(prefix, shift); scratch.members > kThreads; gather(prefix, shift)) {
      shift -= 8;
      prefix = next_digit(prefix, shift);
    }
    if (threadIdx.x < scratch.members) {
      const Rank mine = scratch.ranks[threadIdx.x];
      Mass running = 0;
      for (std::uint32_t i = 0; i < scratch.members; ++i) running += scratch.ranks[i] >= mine ? scratch.terms[i] : 0;
      if (reaches(running, scratch.terms[threadIdx.x])) scratch.cut = mine;
    }
    __syncthreads();
    return scratch.cut;
  }

  // `wanted` of the terms where they are counted; of masses the part top_p of `whole`, or of all where that is 0.
  // A thread has two bins.
  template <typename T>
  __device__ Rank find(const T* histograms, int slices, Mass wanted, float top_p, Mass whole) const {
    static_assert(kBins == 2 * kThreads);
    const int bin = 2 * threadIdx.x;
    Mass first = 0, second = 0, all;
    for (int i = 0; i < slices; ++i) {
      first += histograms[i * kBins + bin];
      second += histograms[i * kBins + bin + 1];
    }
    const Mass running = running_sum(scratch, first + second, &all);
    if (whole == 0) whole = all;
    if (by_mass) wanted = min(whole, max(Mass{1}, static_cast<Mass>(ceil(static_cast<double>(whole) * top_p))));
    if (running - first - second < wanted && wanted <= running) {
      const Mass left = wanted - (running - first - second);
      scratch.bin = left <= first ? bin : bin + 1;
      scratch.wanted = left <= first ? left : left - first;
    }
    __syncthreads();
    return in_bin();
  }
};

__device__ inline int pieces_of(const SampledRow& row) {
  return (row.vocabulary + kThreads * kPiece - 1) / (kThreads * kPiece);
}

// In scratch.terms the masses that the 1024 stretches of `pieces` pieces have in tokens of rank >= cut; running: up to
// this thread's stretch. Returns the mass of all.
__device__ inline Mass kept_masses(const SampledRow& row, Scratch& scratch, Rank cut, int pieces, Mass* running) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int first = 0; first < kWarp; first += kBatch) {
    Mass sums[kBatch] = {};
    for (int piece = 0; piece < pieces; ++piece) {
      int ids[kBatch];
      FourFloats fours[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        ids[i] = (((first + i) * kWarp + warp) * pieces + piece) * kPiece + lane * kVectorFloats;
        fours[i] = row.four(ids[i]);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        for (int j = 0; j < kVectorFloats; ++j) {
          const float logit = fours[i].at[j];
          if (rank_of(logit, ids[i] + j) >= cut) sums[i] += row.mass(logit);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const Mass sum = warp_sum(sums[i]);
      // Stretch number (first + i) · 32 + warp.
      if (lane == 0) scratch.terms[(first + i) * kWarp + warp] = sum;
    }
  }
  __syncthreads();
  Mass all;
  *running = running_sum(scratch, scratch.terms[threadIdx.x], &all);
  return all;
}

// Draws among the tokens of rank >= cut, in order of ids.
__device__ inline int draw(const SampledRow& row, Scratch& scratch, Rank cut, double uniform) {
  const int pieces = pieces_of(row), stretch = pieces * kPiece;
  Mass running;
  const Mass all = kept_masses(row, scratch, cut, pieces, &running);
  const Mass target = min(all - 1, static_cast<Mass>(uniform * static_cast<double>(all)));
  const Mass own = scratch.terms[threadIdx.x];
  if (running - own <= target && target < running) {
    scratch.bin = threadIdx.x * stretch;
    scratch.wanted = target - (running - own);
  }
  __syncthreads();
  const int begin = scratch.bin, end = min(row.vocabulary, begin + stretch);
  Mass left = scratch.wanted;
  for (int first = begin; first < end; first += kThreads) {
    const int id = first + threadIdx.x;
    const bool kept = id < end && rank_of(row.logits[id], id) >= cut;
    const Mass mine = kept ? row.mass(row.logits[id]) : 0;
    Mass sum;
    const Mass to_here = running_sum(scratch, mine, &sum);
    if (to_here - mine <= left && left < to_here) scratch.token = id;
    if (left < sum) break;
    left -= sum;
  }
  __syncthreads();
  return scratch.token;
}

}  // namespace tempora::device
