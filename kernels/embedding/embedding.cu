// SPDX-License-Identifier: Apache-2.0
// Embedding on a GPU: a thread has one number of a row; backward it looks through all ids for its row's.
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

template <class T>
__global__ void add_rows(const int32_t* ids, const T* dy, float* dtable, unsigned samples, unsigned width,
                         unsigned parts) {
  const unsigned k = blockIdx.x / parts, i = blockIdx.x % parts * kThreads + threadIdx.x;
  if (i >= width) return;
  float sum = 0;
  for (unsigned n = 0; n < samples; ++n)
    if (ids[n] == static_cast<int32_t>(k)) sum += float(dy[int64_t{n} * width + i]);
  dtable[int64_t{k} * width + i] = sum;
}

template <class Table, class T>
void forward(const NoParams&, const KernelArgs& args) {
  const View &table = args.in[0], &ids = args.in[1];
  const unsigned parts = blocks(table.dim(1), kThreads);
  launch(take_rows<Table, T>, ids.dim(0) * parts, kThreads, 0, args.stream, table.as<const Table>(),
         ids.as<const int32_t>(), args.out[0].as<T>(), table.dim(0), table.dim(1), parts);
}

template <class T>
void backward(const NoParams&, const KernelArgs& args) {
  const View &ids = args.in[0], &dtable = args.out[0];
  const unsigned parts = blocks(dtable.dim(1), kThreads);
  launch(add_rows<T>, dtable.dim(0) * parts, kThreads, 0, args.stream, ids.as<const int32_t>(),
         args.in[1].as<const T>(), dtable.as<float>(), ids.dim(0), dtable.dim(1), parts);
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
}

}  // namespace

void register_embedding(Registry& r, Device device) {
  add_embedding<float>(r, device);
  add_embedding<bf16>(r, device);
}

}  // namespace lockstep::LOCKSTEP_DEVICE
