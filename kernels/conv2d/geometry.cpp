// SPDX-License-Identifier: Apache-2.0
#include "kernels/conv2d/geometry.h"

#include <algorithm>

namespace lockstep {

namespace {

struct AxisTap {
  int64_t tap = 0, source = 0;  // source relative to the place's first one
  bool operator==(const AxisTap&) const = default;
};

// Places along one axis that keep the same taps at the same distances.
struct AxisClass {
  std::vector<int64_t> places, first_sources;
  std::vector<AxisTap> taps;
};

// source(place, tap) is negative where the tap finds nothing.
template <class Source>
std::vector<AxisClass> axis_classes(int64_t places, int64_t taps, Source source) {
  std::vector<AxisClass> classes;
  for (int64_t place = 0; place < places; ++place) {
    std::vector<AxisTap> kept;
    for (int64_t t = 0; t < taps; ++t)
      if (const int64_t s = source(place, t); s >= 0) kept.push_back({t, s});
    std::sort(kept.begin(), kept.end(), [](auto& a, auto& b) { return a.source < b.source; });
    const int64_t first = kept.empty() ? 0 : kept.front().source;
    for (auto& k : kept) k.source -= first;
    auto found = std::find_if(classes.begin(), classes.end(), [&](auto& c) { return c.taps == kept; });
    if (found == classes.end()) found = classes.insert(classes.end(), {{}, {}, kept});
    found->places.push_back(place);
    found->first_sources.push_back(first);
  }
  return classes;
}

std::vector<GatherClass> combine(const std::vector<AxisClass>& rows, const std::vector<AxisClass>& columns,
                                 ImageSize x, ImageSize y, ImageSize kernel) {
  std::vector<GatherClass> classes;
  for (const auto& row : rows)
    for (const auto& column : columns) {
      GatherClass c;
      for (size_t i = 0; i < row.places.size(); ++i)
        for (size_t j = 0; j < column.places.size(); ++j) {
          c.x_at.push_back((row.first_sources[i] * x.w + column.first_sources[j]) * kLanes);
          c.y_at.push_back((row.places[i] * y.w + column.places[j]) * kLanes);
        }
      for (const auto& r : row.taps)
        for (const auto& s : column.taps)
          c.taps.push_back({(r.source * x.w + s.source) * kLanes, r.tap * kernel.w + s.tap});
      classes.push_back(std::move(c));
    }
  return classes;
}

}  // namespace

std::vector<GatherClass> forward_classes(const Conv2dParams& p, ImageSize x, ImageSize y, ImageSize kernel) {
  const auto axis = [](int64_t stride, int64_t pad, int64_t dilation, int64_t size) {
    return [=](int64_t place, int64_t tap) {
      const int64_t s = place * stride - pad + tap * dilation;
      return s < size ? s : -1;
    };
  };
  return combine(axis_classes(y.h, kernel.h, axis(p.stride_h, p.pad_top, p.dilation_h, x.h)),
                 axis_classes(y.w, kernel.w, axis(p.stride_w, p.pad_left, p.dilation_w, x.w)), x, y, kernel);
}

std::vector<GatherClass> input_grad_classes(const Conv2dParams& p, ImageSize dx, ImageSize dy,
                                            ImageSize kernel) {
  const auto axis = [](int64_t stride, int64_t pad, int64_t dilation, int64_t size) {
    return [=](int64_t place, int64_t tap) {
      const int64_t s = place + pad - tap * dilation;
      return s >= 0 && s % stride == 0 && s / stride < size ? s / stride : -1;
    };
  };
  return combine(axis_classes(dx.h, kernel.h, axis(p.stride_h, p.pad_top, p.dilation_h, dy.h)),
                 axis_classes(dx.w, kernel.w, axis(p.stride_w, p.pad_left, p.dilation_w, dy.w)), dy, dx,
                 kernel);
}

}  // namespace lockstep
