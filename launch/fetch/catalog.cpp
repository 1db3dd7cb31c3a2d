// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/catalog.h"

namespace lockstep {

const std::vector<RemoteSet>& remote_sets() {
  static const std::vector<RemoteSet> sets = {
      {"mnist",
       {"https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/", "http://yann.lecun.com/exdb/mnist/"},
       {{"train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb", true},
        {"train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624", true},
        {"t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea", true},
        {"t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637", true}},
       "",
       "# MNIST\n\nBy Yann LeCun (Courant Institute, NYU), Corinna Cortes (Google Labs, New York) and "
       "Christopher J. C. Burges\n(Microsoft Research, Redmond); http://yann.lecun.com/exdb/mnist/. Made "
       "available under the Creative Commons\nAttribution-ShareAlike 3.0 licence, "
       "https://creativecommons.org/licenses/by-sa/3.0/.\n"},
      {"fashion_mnist",
       {"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"},
       {{"train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", false},
        {"train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", false},
        {"t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", false},
        {"t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", false}},
       "",
       "# Fashion-MNIST\n\nBy Han Xiao, Kashif Rasul and Roland Vollgraf (Zalando Research); "
       "https://github.com/zalandoresearch/fashion-mnist.\n\n"
       "The MIT License (MIT). Copyright (c) 2017 Zalando SE, https://tech.zalando.com\n\n"
       "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and "
       "associated\ndocumentation files (the \"Software\"), to deal in the Software without restriction, "
       "including without limitation\nthe rights to use, copy, modify, merge, publish, distribute, "
       "sublicense, and/or sell copies of the Software, and\nto permit persons to whom the Software is "
       "furnished to do so, subject to the following conditions:\n\n"
       "The above copyright notice and this permission notice shall be included in all copies or substantial "
       "portions of the\nSoftware.\n\n"
       "THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT "
       "NOT LIMITED TO\nTHE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND "
       "NONINFRINGEMENT. IN NO EVENT SHALL THE\nAUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, "
       "DAMAGES "
       "OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,\nTORT OR OTHERWISE, ARISING FROM, OUT OF OR IN "
       "CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE\nSOFTWARE.\n"},
      {"cifar10",
       {"https://www.cs.toronto.edu/~kriz/"},
       {{"cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", false}},
       "cifar-10-batches-bin",
       "# CIFAR-10\n\nBy Alex Krizhevsky, Vinod Nair and Geoffrey Hinton; "
       "https://www.cs.toronto.edu/~kriz/cifar.html. The authors state no\nlicence; they ask to cite "
       "\"Learning Multiple Layers of Features from Tiny Images\", Alex Krizhevsky, 2009.\n"}};
  return sets;
}

}  // namespace lockstep
