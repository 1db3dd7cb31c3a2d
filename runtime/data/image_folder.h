// SPDX-License-Identifier: Apache-2.0
// A folder of PNG and JPEG files with a folder per class, as torchvision's ImageFolder reads it: classes in
// the order of their names, within a class the files in the order of their paths. Or one without classes: the files
// themselves.
#pragma once

#include <string>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

struct ImageFolder {
  std::vector<std::string> classes;  // none: the folder holds the files themselves
  std::vector<std::string> files;
  std::vector<int32_t> labels;                          // one a file; 0 where there are no classes
  std::vector<std::vector<std::string>> captions = {};  // of each file; empty: none were asked for
  std::vector<std::string> caption_files = {};          // that they were read from
  std::vector<std::string> passed_over;  // files that are no pictures, or lie beside the classes' folders
  std::string remark = {};               // what of its layout might be meant otherwise; empty: nothing
};

// Where train/ or test/ stand below `path`, and nothing with pictures beside them but a validation half, the one that
// `test` says is read. A class's pictures may lie in folders of its folder. Names that begin with a dot and what systems
// leave are passed over, and so are files that neither by their name nor by their content are meant to be pictures
// (looks_like_picture). Error no_input (66): the folder is missing, or holds no pictures; data (65): a class without
// images, folders that may be halves or classes.
ImageFolder find_image_folder(const std::string& path, bool test);
// The same where captions are wanted (runtime/data/captions.h), which are instead of classes. Where there is a metadata.jsonl,
// pictures that it does not list are passed over. Errors: no_input (66) where nothing has captions, data (65).
ImageFolder find_captioned_folder(const std::string& path, bool test, const std::string& column);
struct ImageFolderOptions {
  ImageFit fit;
  bool skip_bad = false;  // leave out what cannot be read, instead of stopping at the first
  int64_t max_pixels = kMaxPixels;
  int threads = 1;
};
// One channel if every image is grey, else three. Error data (65) naming the first image that cannot be read
// or, fitted, is of another size than the one before; with skip_bad a class of which none can be read.
ImageSet read_image_folder(const ImageFolder& folder, const ImageFolderOptions& options);
// By the images' headers alone, with the labels of those that can be read and the others, each with what is wrong.
DatasetShape probe_image_folder(const ImageFolder& folder, const ImageFolderOptions& options,
                                std::vector<int32_t>& labels, std::vector<std::string>& skipped);

}  // namespace lockstep
