// SPDX-License-Identifier: Apache-2.0
// Rows of a table by number, as PyTorch's Embedding.
//
// Op                  inputs        outputs
//   embedding         table, ids    y          y[n] = table[ids[n]]
//   embedding_grad    ids, dy       dtable     dtable[k] = sum of dy[n] over the n with ids[n] = k, in order
// table, dtable [K, D] plain; ids i32 [N], or of tokens [N, T], plain; y, dy [N, D] or [N, T, D]; dtable is a sum
// over this rank's samples, in float. y has the table's dtype, or is bf16.
// Whoever makes ids keeps them in [0, K): labels are checked against the number of classes when they are
// read. A number outside is never an address: such a sample's y is 0, and its dy is left out.
//
//   position_embedding         x, table    y          y[n, t] = x[n, t] + table[t]
//   position_embedding_grad    dy          dtable     dtable[t] = sum of dy[n, t] over n, in order; dx is dy
// x, y, dy [N, T, D] plain; table, dtable [P, D], P >= T: rows behind the T are not read, and their gradient is
// 0. dtable in float, as above. y may be x's buffer.
#pragma once
