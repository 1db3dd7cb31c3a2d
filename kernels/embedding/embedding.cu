// SPDX-License-Identifier: Apache-2.0
// Embedding on a GPU: a thread has one number of a row. Backward the first id of each kind adds up the rows of
// all of its kind, in order.
#include "kernels/embedding/embedding.h"
#include "kernels/gpu/device_code.h"
#include "kernels/gpu/vectors.h"

namespace lockstep::LOCKSTEP_DEVICE {
namespace {

constexpr int kThreads = 128;

// A row of numbers is cut among `parts` blocks.
template <class Table, class T>
__global__ void take_rows(const Table* table, const int32_t* ids, T* y, unsigned rows, unsigned width,
                          unsigned parts) {
  const unsigned n = blockIdx.x / parts, i = blockIdx.x % parts * kThreads + threadIdx.x;
  if (i >= width) return;
  const int32_t k = ids[n];
  const bool inside = k >= 0 && static_cast<unsigned>(k) < rows;
  y[int64_t{n} * width + i] = inside ? T(float(table[int64_t{k} * width + i])) : T(0.0f);
}

__global__ void clear(float* x, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) x[i] = 0;
}

template <class T>
__global__ void add_rows(const int32_t* ids, const T* dy, float* dtable, unsigned count, unsigned rows,
                         unsigned width, unsigned parts) {
  const unsigned first = blockIdx.x / parts, i = blockIdx.x % parts * kThreads + threadIdx.x;
  const int32_t k = ids[first];
  if (i >= width || k < 0 || static_cast<unsigned>(k) >= rows) return;
  for (unsigned n = 0; n < first; ++n)
    if (ids[n] == k) return;
  float sum = 0;
  for (unsigned n = first; n < count; ++n)
    if (ids[n] == k) sum += float(dy[int64_t{n} * width + i]);
  dtable[int64_t{k} * width + i] = sum;
}

// Numbers of one sample: count.
template <class T>
__global__ void add_positions(const T* x, const float* table, T* y, int64_t count, int64_t all) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < all) y[i] = T(float(x[i]) + table[i % count]);
}

// The table's numbers behind `count` get 0.
template <class T>
__global__ void sum_positions(const T* dy, float* dtable, int64_t samples, int64_t count, int64_t of_table) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= of_table) return;
  float sum = 0;
  if (i < count)
    for (int64_t n = 0; n < samples; ++n) sum += float(dy[n * count + i]);
  dtable[i] = sum;
}

template <class Table, class T>
void forward(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1];
  const unsigned parts = blocks(table.dim(1), kThreads);
  launch(take_rows<Table, T>, ids.shape().elements() * parts, kThreads, 0, args.stream,
         table.as<const Table>(), ids.as<const int32_t>(), args.out[0].as<T>(), table.dim(0), table.dim(1),
         parts);
}

template <class T>
void backward(const NoParams&, const KernelArgs& args) {
  const View &ids = args.in[0], &dtable = args.out[0];
  const int64_t count = ids.shape().elements(), all = dtable.shape().elements();
  const unsigned parts = blocks(dtable.dim(1), kThreads);
  launch(clear, blocks(all, kThreads), kThreads, 0, args.stream, dtable.as<float>(), all);
  launch(add_rows<T>, count * parts, kThreads, 0, args.stream, ids.as<const int32_t>(),
         args.in[1].as<const T>(), dtable.as<float>(), count, dtable.dim(0), dtable.dim(1), parts);
}

template <class T>
void position_forward(const NoParams&, const KernelArgs& args) {
  const Shape& x = args.in[0].shape();
  launch(add_positions<T>, blocks(x.elements(), kThreads), kThreads, 0, args.stream, args.in[0].as<const T>(),
         args.in[1].as<const float>(), args.out[0].as<T>(), x.elements_from(1), x.elements());
}

template <class T>
void position_backward(const NoParams&, const KernelArgs& args) {
  const Shape &dy = args.in[0].shape(), &table = args.out[0].shape();
  launch(sum_positions<T>, blocks(table.elements(), kThreads), kThreads, 0, args.stream,
         args.in[0].as<const T>(), args.out[0].as<float>(), dy[0], dy.elements_from(1), table.elements());
}

// The table is f32 (masters) or bf16 (their copy), its gradient f32.
template <class T>
void add_embedding(Registry& r, Device device) {
  r.add({.op = "embedding",
         .name = "rows",
         .device = device,
         .layout = LayoutClass::plain,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (q.out[0].dtype != dtype_of<T>) return nullptr;
           if (q.in[0].dtype == DType::f32) return stateless<NoParams>(forward<float, T>)(q);
           return q.in[0].dtype == dtype_of<T> ? stateless<NoParams>(forward<T, T>)(q) : nullptr;
         }});
  r.add({.op = "embedding_grad",
         .name = "rows",
         .device = device,
         .layout = LayoutClass::plain,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = false},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           if (q.in[1].dtype != dtype_of<T> || q.out[0].dtype != DType::f32) return nullptr;
           return stateless<NoParams>(backward<T>)(q);
         }});
  r.add({.op = "position_embedding",
         .name = "rows",
         .device = device,
         .layout = LayoutClass::plain,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = true},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return norm_types<T>(q, 1, 1) ? stateless<NoParams>(position_forward<T>)(q) : nullptr;
         }});
  r.add({.op = "position_embedding_grad",
         .name = "rows",
         .device = device,
         .layout = LayoutClass::plain,
         .dtype = dtype_of<T>,
         .bit_exact = {.threads = true, .shard = false},
         .make = [](const KernelRequest& q) -> std::unique_ptr<Kernel> {
           return norm_types<T>(q, 1, 0) ? stateless<NoParams>(position_backward<T>)(q) : nullptr;
         }});
}

}  // namespace

void register_embedding(Registry& r, Device device) {
  add_embedding<float>(r, device);
  add_embedding<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
