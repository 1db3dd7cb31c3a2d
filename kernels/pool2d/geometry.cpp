// SPDX-License-Identifier: Apache-2.0
#include "kernels/pool2d/geometry.h"

#include <algorithm>

namespace lockstep::pool2d {
namespace {

// Fills one axis' windows; false where one is empty.
bool fill_windows(const Axis& axis, std::vector<Window>& windows, bool& edge_to_edge, int64_t& covered) {
  covered = 0;
  for (int64_t o = 0; o < axis.out; ++o) {
    const Window w = axis.window(o);
    if (w.r0 >= w.r1) return false;
    edge_to_edge &= w.r0 == 0 && w.start == covered && (w.r1 == 1 || axis.dilation == 1);
    covered = w.start + w.r1;
    windows.push_back(w);
  }
  return true;
}

void prepare_plain(Geometry& g) {
  const int64_t positions = std::min<int64_t>(g.p.kernel_h * g.p.kernel_w, 256);
  for (int64_t i = 0; i < positions; ++i)
    g.taps[static_cast<size_t>(i)] =
        i / g.p.kernel_w * g.p.dilation_h * g.w + i % g.p.kernel_w * g.p.dilation_w;
  if (g.p.adaptive || g.p.stride_w > 2) return;
  const auto inner = [&](const Window& w) {
    const int64_t after = w.start + (g.p.kernel_w - 1) * g.p.dilation_w + g.p.stride_w;
    return w.r0 == 0 && w.r1 == g.p.kernel_w && after <= g.w;
  };
  const auto first = std::find_if(g.columns.begin(), g.columns.end(), inner);
  g.inner_first = first - g.columns.begin();
  g.inner_last = std::find_if_not(first, g.columns.end(), inner) - g.columns.begin();
}

}  // namespace

std::optional<Geometry> make_geometry(const Pool2dParams& p, const TensorSpec& image) {
  Geometry g{.p = p, .h = image.shape[2], .w = image.shape[3]};
  g.v = image.layout == Layout::lanes ? kLanes : image.layout == Layout::nhwc ? image.shape[1] : 1;
  g.tiles = true;
  if (!fill_windows(rows(p, image.shape), g.rows, g.tiles, g.covered_h) ||
      !fill_windows(columns(p, image.shape), g.columns, g.tiles, g.covered_w))
    return std::nullopt;
  const auto all_pairs = [](const std::vector<Window>& windows) {
    return std::all_of(windows.begin(), windows.end(), [](const Window& o) { return o.r1 - o.r0 == 2; });
  };
  g.pairs = g.tiles && p.kernel_h == 2 && p.kernel_w == 2 && all_pairs(g.rows) && all_pairs(g.columns);
  if (g.v == 1) prepare_plain(g);
  return g;
}

}  // namespace lockstep::pool2d
