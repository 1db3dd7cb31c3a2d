// SPDX-License-Identifier: Apache-2.0
// Copies a tensor into another layout.
//
// Op         inputs   outputs
//   reorder  x        y     same shape and dtype (f32), layouts as their specs say
// Into lanes: padding lanes are written as 0. Into plain or nhwc: padding lanes are dropped.
#pragma once
