// SPDX-License-Identifier: Apache-2.0
// The matrix product under convolutions and linear: D[m, n] = sum over k of A[m, k] * B[k, n].
//
// A block computes a kM x kN tile of D, its depth k in steps of 64 bytes through a ring of kStages buffers in
// shared memory (cp.async). bf16 goes through tensor cores, float through FMAs; both add in float, for every
// element one product after another (tensor cores: 16 at a time) in the order of k, whatever the tile. An
// operand is stored in lines, either along k (a line per m or n) or along m or n (a line per k); each comes
// from a source:
//   struct Source {
//     using Line = ...;      // where line i begins, or that it doesn't exist
//     using Position = ...;  // element j of a line, a multiple of 16 bytes
//     Line line(int i) const;
//     Position position(int j) const;
//     Piece<T> at(const Line&, const Position&) const;  // 16 bytes and how many of their elements exist
//   };
// What doesn't exist counts as 0: tails need no care anywhere else.
#pragma once

#include "kernels/gpu/device_code.h"

namespace lockstep::LOCKSTEP_DEVICE {

template <class T>
struct Piece {
  const T* data;  // in the source even where nothing exists
  int count;
};

// A row-major matrix. Rows begin at multiples of 16 bytes if pieces are to be loaded whole.
template <class T>
struct Rows {
  const T* data;
  int64_t stride;  // between rows
  int rows, columns;

  using Line = const T*;
  using Position = int;
  __device__ Line line(int i) const { return i < rows ? data + i * stride : nullptr; }
  __device__ Position position(int j) const { return j; }
  __device__ Piece<T> at(const Line& line, const Position& j) const {
    if (line == nullptr || j >= columns) return {data, 0};
    return {line + j, min(columns - j, Vector<T>::kCount)};
  }
};

inline constexpr int kStages = 4;
// Elements of a buffer along k.
template <class T>
inline constexpr int kDepth = 64 / int{sizeof(T)};
template <class T>
inline constexpr int kGemmThreads = sizeof(T) == 2 ? 128 : 256;
// On a multiprocessor at once, so that one computes while another waits; wide float tiles need the registers
// of two.
template <class T, int kM, int kN>
inline constexpr int kGemmBlocks = sizeof(T) == 4 && (kM > 64 || kN > 64) ? 1 : 2;

// One operand's part of a buffer: kExtent of m or n. Pieces lie where neither the copies into shared memory
// nor the loads of fragments meet in a bank.
template <class T, int kExtent, bool kAlongK>
struct OperandTile {
  static constexpr int kPiece = Vector<T>::kCount;
  static constexpr int kLines = kAlongK ? kExtent : kDepth<T>;
  static constexpr int kPieces = (kAlongK ? kDepth<T> : kExtent) / kPiece;  // of a line
  static constexpr int kElements = kExtent * kDepth<T>;

  static __device__ int offset(int line, int piece) {
    return (line * kPieces + (kAlongK ? piece ^ (line >> 1 & 3) : piece ^ (line & 7))) * kPiece;
  }
};

// A thread's share of copying an operand: one position, several lines. kWhole: pieces are aligned.
template <class T, int kExtent, bool kAlongK, bool kWhole, class Source>
class OperandLoader {
 public:
  __device__ OperandLoader(const Source& source, int first) : source_(source), first_(first) {
    const int thread = static_cast<int>(threadIdx.x);
    piece_ = thread % Tile::kPieces, line_ = thread / Tile::kPieces;
    if constexpr (kAlongK)
#pragma unroll
      for (int i = 0; i < kLoads; ++i) lines_[i] = source.line(first + line_ + i * kLinesApart);
    else
      position_[0] = source.position(first + piece_ * Tile::kPiece);
  }
  __device__ void load(T* tile, int k) {
    if constexpr (kAlongK) {
      const auto position = source_.position(k + piece_ * Tile::kPiece);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) copy(tile, i, source_.at(lines_[i], position));
    } else {
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        copy(tile, i, source_.at(source_.line(k + line_ + i * kLinesApart), position_[0]));
    }
  }

 private:
  using Tile = OperandTile<T, kExtent, kAlongK>;
  static constexpr int kLinesApart = kGemmThreads<T> / Tile::kPieces;
  static constexpr int kLoads = Tile::kLines / kLinesApart;
  static_assert(kLoads * kLinesApart == Tile::kLines);

  __device__ void copy(T* tile, int i, Piece<T> piece) const {
    T* to = tile + Tile::offset(line_ + i * kLinesApart, piece_);
    if constexpr (kWhole) {
      cp_async16(to, piece.data, piece.count * static_cast<int>(sizeof(T)));
    } else {
      Vector<T> v;
#pragma unroll
      for (int e = 0; e < Vector<T>::kCount; ++e) v[e] = e < piece.count ? piece.data[e] : T(0.0f);
      store16(to, v);
    }
  }

  const Source& source_;
  int first_, piece_, line_;
  typename Source::Line lines_[kAlongK ? kLoads : 1];
  typename Source::Position position_[1];
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

  __device__ void multiply(const float* a, const float* b) {
#pragma unroll
    for (int k = 0; k < kDepth<float>; k += 4) {
      float rows[kRows / 4][4][4];
#pragma unroll
      for (int i = 0; i < kRows / 4; ++i) load<kM, kAAlongK>(rows[i], a, row(4 * i), row(4 * i + 1), k);
#pragma unroll
      for (int j = 0; j < kColumns / 4; ++j) {
        float columns[4][4];
        load<kN, kBAlongK>(columns, b, column(4 * j), column(4 * j + 1), k);
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

  __device__ void multiply(const bf16* a, const bf16* b) {
    using ATile = OperandTile<bf16, kM, kAAlongK>;
    using BTile = OperandTile<bf16, kN, kBAlongK>;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int low = lane % 8, middle = lane / 8 % 2,
              high = lane / 16;  // four 8 x 8 matrices, 8 lanes name the lines of each
#pragma unroll
    for (int k = 0; k < kDepth<bf16>; k += 16) {
      uint32_t rows[kRows][4];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int m = warp / 2 * (kM / 2) + i * 16;
        if constexpr (kAAlongK)
          ldmatrix_x4(rows[i], a + ATile::offset(m + middle * 8 + low, k / 8 + high));
        else
          ldmatrix_x4_trans(rows[i], a + ATile::offset(k + high * 8 + low, m / 8 + middle));
      }
#pragma unroll
      for (int j = 0; j < kColumns; j += 2) {
        const int n = warp % 2 * (kN / 2) + j * 8;
        uint32_t both[4];
        if constexpr (kBAlongK)
          ldmatrix_x4(both, b + BTile::offset(n + high * 8 + low, k / 8 + middle));
        else
          ldmatrix_x4_trans(both, b + BTile::offset(k + middle * 8 + low, n / 8 + high));
        const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          mma_m16n8k16(sums[i][j], rows[i], first);
          mma_m16n8k16(sums[i][j + 1], rows[i], second);
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
  constexpr int kBuffer = OperandTile<T, kM, kAAlongK>::kElements + OperandTile<T, kN, kBAlongK>::kElements;
  T* const shared = dynamic_shared<T>();
  OperandLoader<T, kM, kAAlongK, kWhole, A> load_a(a, m);
  OperandLoader<T, kN, kBAlongK, kWhole, B> load_b(b, n);
  int k = k_begin, filled = 0;  // what comes next, and the buffer it goes to
  const auto fill = [&] {
    if (k < k_end) {
      load_a.load(shared + filled * kBuffer, k);
      load_b.load(shared + filled * kBuffer + OperandTile<T, kM, kAAlongK>::kElements, k);
      k += kDepth<T>;
      filled = filled + 1 == kStages ? 0 : filled + 1;
    }
    cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) fill();
  int used = 0;
  for (int done = k_begin; done < k_end; done += kDepth<T>) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // this buffer is full for all; the one before it is free
    fill();
    tile.multiply(shared + used * kBuffer, shared + used * kBuffer + OperandTile<T, kM, kAAlongK>::kElements);
    used = used + 1 == kStages ? 0 : used + 1;
  }
}

}  // namespace lockstep::LOCKSTEP_DEVICE
