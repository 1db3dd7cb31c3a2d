// SPDX-License-Identifier: Apache-2.0
// The matrix product under convolutions and linear: D[m, n] = sum over k of A[m, k] * B[k, n].
//
// A block computes a kM x kN tile of D, its depth k in steps of 64 bytes through a ring of kStages buffers in
// shared memory (cp.async). bf16 goes through tensor cores, float through FMAs; both add in float, for every
// element one product after another (tensor cores: 16 at a time) in the order of k, whatever the tile. An
// operand is stored in lines, either along k (a line per m or n) or along m or n (a line per k); each comes
// from a source, whose readers a thread moves along k:
//   struct Source {
//     template <int kCount, int kApart>
//     struct AlongK {  // reads kCount lines, kApart apart
//       AlongK(const Source&, int line, int k, int k_end);
//       Piece<T> take(int i);  // of line i; after the last, all move on by kDepth
//     };
//     template <int kApart>
//     struct Across {  // reads one position of every kApart-th line
//       Across(const Source&, int k, int position, int k_end);
//       Piece<T> take(int i);  // of the next line
//     };
//   };
// What doesn't exist counts as 0, so tails need no care anywhere else. Readers add where they could multiply or
// divide, and keep addresses opaque, which the compiler would compute anew: a step is short, and its copies must
// not take longer to issue than its products.
#pragma once

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

inline constexpr int kStages = 4;
// Elements of a buffer along k.
template <class T>
inline constexpr int kDepth = 64 / int{sizeof(T)};
template <class T>
inline constexpr int kGemmThreads = sizeof(T) == 2 ? 128 : 256;
// On a multiprocessor at once, so that one computes while another waits: as many as tiles leave registers for,
// in float fewer where lines of A are along k.
template <class T>
constexpr int gemm_blocks(int m, int n, bool a_along_k) {
  if (sizeof(T) == 4) return m + n > (a_along_k ? 128 : 192) ? 1 : 2;
  return m + n > 192 ? 2 : m + n > 128 ? 3 : 5;
}

// 16 bytes of a line.
template <class T>
struct Piece {
  const T* data;  // of a piece that exists
  bool exists;
  int count;  // of its elements, if it exists, or more
};

// A row-major matrix; its lines are its rows. They begin at multiples of 16 bytes if pieces are to be loaded whole.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;  // between rows
  int rows, columns;

  template <int kCount, int kApart>
  class AlongK {
   public:
    __device__ AlongK(const Rows& of, int line, int k, int k_end)
        : k_(0), left_(k_end - k), lines_left_(of.rows - line) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) lines_[i] = opaque(of.data + (line + i * kApart) * of.stride + k);
    }
    __device__ Piece<T> take(int i) {
      const bool exists = (k_ < left_) & (i * kApart < lines_left_);
      const Piece<T> piece{lines_[i] + k_, exists, left_ - k_};
      if (i == kCount - 1) k_ += kDepth<T>;
      return piece;
    }

   private:
    const T* lines_[kCount];
    int k_, left_, lines_left_;
  };

  template <int kApart>
  class Across {
   public:
    __device__ Across(const Rows& of, int k, int position, int k_end)
        : at_(of.data + k * of.stride + position),
          step_(kApart * of.stride),
          count_(of.columns - position),
          left_(count_ > 0 ? k_end - k : 0) {}
    __device__ Piece<T> take(int /*i*/) {
      const Piece<T> piece{at_, left_ > 0, count_};
      at_ = opaque(at_ + step_), left_ -= kApart;
      return piece;
    }

   private:
    const T* at_;
    int64_t step_;
    int count_, left_;  // elements; lines
  };
};

// One operand's part of a buffer: kExtent of m or n. Pieces lie where neither the copies into shared memory
// nor the loads of fragments meet in a bank.
template <class T, int kExtent, bool kAlongK>
struct OperandTile {
  static constexpr int kPiece = Vector<T>::kCount;
  static constexpr int kLines = kAlongK ? kExtent : kDepth<T>;
  static constexpr int kPieces = (kAlongK ? kDepth<T> : kExtent) / kPiece;  // of a line
  static constexpr int kElements = kExtent * kDepth<T>;

  // Of a piece in line `line + further`, where `further` is a multiple of 8: it only adds to the address.
  static __device__ int offset(int line, int piece, int further = 0) {
    return (line * kPieces + (kAlongK ? piece ^ (line >> 1 & 3) : piece ^ (line & 7))) * kPiece +
           further * kPieces * kPiece;
  }
};

// A thread's share of copying an operand: one position, several lines. kWhole: pieces are aligned.
template <class T, int kExtent, bool kAlongK, bool kWhole, class Source>
class OperandLoader {
  using Tile = OperandTile<T, kExtent, kAlongK>;
  static constexpr int kLinesApart = kGemmThreads<T> / Tile::kPieces;
  static_assert(kLinesApart % 8 == 0);

 public:
  static constexpr int kCopies = Tile::kLines / kLinesApart;
  static_assert(kCopies * kLinesApart == Tile::kLines);

  __device__ OperandLoader(const Source& source, int first, int k, int k_end)
      : reader_(source, (kAlongK ? first : k) + line(), (kAlongK ? k : first) + piece() * Tile::kPiece,
                k_end) {}
  // Copy i of a step's; in order.
  __device__ void copy(T* tile, int i) {
    const Piece<T> from = reader_.take(i);
    T* const to = tile + Tile::offset(line(), piece(), i * kLinesApart);
    if constexpr (kWhole) {
      cp_async16_if(from.exists, to, from.data);
    } else {
      Vector<T> v;
#pragma unroll
      for (int e = 0; e < Tile::kPiece; ++e) v[e] = from.exists && e < from.count ? from.data[e] : T(0.0f);
      store16(to, v);
    }
  }

 private:
  static __device__ int piece() { return static_cast<int>(threadIdx.x) % Tile::kPieces; }
  static __device__ int line() { return static_cast<int>(threadIdx.x) / Tile::kPieces; }

  std::conditional_t<kAlongK, typename Source::template AlongK<kCopies, kLinesApart>,
                     typename Source::template Across<kLinesApart>>
      reader_;
};

// --- products of one buffer ---

// float: warps are 4 x 2 over (m, n), a warp's lanes 4 x 8; a thread has kM/16 x kN/16 sums, in groups of 4
// x 4.
template <int kM, int kN, bool kAAlongK, bool kBAlongK>
struct FmaTile {
  using T = float;
  static constexpr int kRows = kM / 16, kColumns = kN / 16;
  float sums[kRows][kColumns] = {};

  // Of sum [i][j].
  static __device__ int row(int i) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32 / 8;
    return warp / 2 * (kM / 4) + element<kAAlongK, 4>(lane, i);
  }
  static __device__ int column(int j) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 8;
    return warp % 2 * (kN / 2) + element<kBAlongK, 8>(lane, j);
  }

  static constexpr int kParts = kDepth<float> / 4 * (kColumns / 4);
  // Adds the products of a buffer, in parts; before each, between(its number).
  template <class Between>
  __device__ void multiply(const float* a, const float* b, Between between) {
#pragma unroll
    for (int k = 0; k < kDepth<float>; k += 4) {
      float rows[kRows / 4][4][4];
#pragma unroll
      for (int i = 0; i < kRows / 4; ++i) load<kM, kAAlongK>(rows[i], a, row(4 * i), row(4 * i + 1), k);
#pragma unroll
      for (int j = 0; j < kColumns / 4; ++j) {
        float columns[4][4];
        load<kN, kBAlongK>(columns, b, column(4 * j), column(4 * j + 1), k);
        between(k / 4 * (kColumns / 4) + j);
        add_products(rows, columns, j);
      }
    }
  }

 private:
  // Registers alone: nothing to watch.
  LOCKSTEP_UNWATCHED __device__ void add_products(const float (&rows)[kRows / 4][4][4],
                                                  const float (&columns)[4][4], int j) {
#pragma unroll
    for (int q = 0; q < 4; ++q)
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          sums[i][4 * j + c] = fmaf(rows[i / 4][i % 4][q], columns[c][q], sums[i][4 * j + c]);
  }
  // Lines along k are read a line per lane, others 16 bytes per lane.
  template <bool kAlongK, int kLanes>
  static __device__ int element(int lane, int i) {
    return kAlongK ? lane + i * kLanes : (i / 4 * kLanes + lane) * 4 + i % 4;
  }
  // to[e][q]: element e of four, of which `first` and `second` are the first two, at k + q.
  template <int kExtent, bool kAlongK>
  static __device__ void load(float (&to)[4][4], const float* tile, int first, int second, int k) {
    using Tile = OperandTile<float, kExtent, kAlongK>;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const Vector<float> v = load16(tile + (kAlongK ? Tile::offset(first + e * (second - first), k / 4)
                                                     : Tile::offset(k + e, first / 4)));
#pragma unroll
      for (int q = 0; q < 4; ++q) (kAlongK ? to[e][q] : to[q][e]) = v[q];
    }
  }
};

// bf16: warps are 2 x 2 over (m, n); fragments of 16 x 8 as mma_m16n8k16 has them.
template <int kM, int kN, bool kAAlongK, bool kBAlongK>
struct MmaTile {
  using T = bf16;
  static constexpr int kRows = kM / 32, kColumns = kN / 16;  // fragments of a warp
  float sums[kRows][kColumns][4] = {};

  // Of sums[i][j][0], [1] one column further, [2] and [3] eight rows.
  static __device__ int row(int i) {
    return static_cast<int>(threadIdx.x) / 64 * (kM / 2) + i * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }
  static __device__ int column(int j) {
    return static_cast<int>(threadIdx.x) / 32 % 2 * (kN / 2) + j * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
  }

  static constexpr int kParts = kDepth<bf16> / 16 * (kColumns / 2);
  // Adds the products of a buffer, in parts; before each, between(its number).
  template <class Between>
  __device__ void multiply(const bf16* a, const bf16* b, Between between) {
    using ATile = OperandTile<bf16, kM, kAAlongK>;
    using BTile = OperandTile<bf16, kN, kBAlongK>;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int low = lane % 8, middle = lane / 8 % 2,
              high = lane / 16;  // four 8 x 8 matrices, 8 lanes name the lines of each
    const int m = warp / 2 * (kM / 2), n = warp % 2 * (kN / 2);
#pragma unroll
    for (int k = 0; k < kDepth<bf16>; k += 16) {
      uint32_t rows[kRows][4];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if constexpr (kAAlongK)
          ldmatrix_x4(rows[i], a + ATile::offset(m + middle * 8 + low, k / 8 + high, i * 16));
        else
          ldmatrix_x4_trans(rows[i], a + ATile::offset(high * 8 + low, m / 8 + i * 2 + middle, k));
      }
      // All before the copies: nvcc puts three idle loads before each copy that follows a load of shared memory.
      uint32_t columns[kColumns / 2][4];
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) {
        if constexpr (kBAlongK)
          ldmatrix_x4(columns[j], b + BTile::offset(n + high * 8 + low, k / 8 + middle, j * 16));
        else
          ldmatrix_x4_trans(columns[j], b + BTile::offset(middle * 8 + low, n / 8 + j * 2 + high, k));
      }
#pragma unroll
      for (int j = 0; j < kColumns / 2; ++j) {
        between(k / 16 * (kColumns / 2) + j);
        const uint32_t first[2] = {columns[j][0], columns[j][1]}, second[2] = {columns[j][2], columns[j][3]};
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          mma_m16n8k16(sums[i][2 * j], rows[i], first);
          mma_m16n8k16(sums[i][2 * j + 1], rows[i], second);
        }
      }
    }
  }
};

template <class T, int kM, int kN, bool kAAlongK, bool kBAlongK>
using ProductTile = std::conditional_t<sizeof(T) == 2, MmaTile<kM, kN, kAAlongK, kBAlongK>,
                                       FmaTile<kM, kN, kAAlongK, kBAlongK>>;

// --- a whole tile ---

template <class T, int kM, int kN>
inline constexpr size_t kGemmSharedBytes = size_t{kStages} * (kM + kN) * 64;

// Adds the products of k in [k_begin, k_end) to tile, whose first element is D[m, n].
template <int kM, int kN, bool kAAlongK, bool kBAlongK, bool kWhole, class Tile, class A, class B>
__device__ void multiply_tile(Tile& tile, const A& a, const B& b, int m, int n, int k_begin, int k_end) {
  using T = typename Tile::T;
  using LoadA = OperandLoader<T, kM, kAAlongK, kWhole, A>;
  using LoadB = OperandLoader<T, kN, kBAlongK, kWhole, B>;
  constexpr int kOfA = OperandTile<T, kM, kAAlongK>::kElements,
                kBuffer = kOfA + OperandTile<T, kN, kBAlongK>::kElements;
  constexpr int kCopies = LoadA::kCopies + LoadB::kCopies;
  LoadA load_a(a, m, k_begin, k_end);
  LoadB load_b(b, n, k_begin, k_end);
  const auto copy = [&](T* buffer, int begin, int end) {  // of a step's copies
#pragma unroll
    for (int i = begin; i < end; ++i)
      if (i < LoadA::kCopies)
        load_a.copy(buffer, i);
      else
        load_b.copy(buffer + kOfA, i - LoadA::kCopies);
  };
  T* const shared = dynamic_shared<T>();
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    copy(shared + s * kBuffer, 0, kCopies);
    cp_async_commit();
  }
  T *full = shared, *free = shared + (kStages - 1) * kBuffer;
  for (int k = k_begin; k < k_end; k += kDepth<T>) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // this buffer is full for all; the one before it is free
    // Copies are spread over the products, so that neither waits for the other to be issued; single elements
    // are loaded at once, since the first would wait for memory.
    tile.multiply(full, full + kOfA, [&](int part) {
      if constexpr (kWhole)
        copy(free, part * kCopies / Tile::kParts, (part + 1) * kCopies / Tile::kParts);
      else if (part == 0)
        copy(free, 0, kCopies);
    });
    cp_async_commit();
    free = full;
    full = full == shared + (kStages - 1) * kBuffer ? shared : full + kBuffer;
  }
  cp_async_wait<0>();  // the last are of zeros, but under way
}

}  // namespace lockstep::LOCKSTEP_DEVICE
