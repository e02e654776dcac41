"""What each named data set is, where it comes from, and under which terms it may be used: for the cards of networks."""

_TINY_IMAGES = (
    "32x32 photographs found by web search and labelled by paid students, a part of the 80 Million Tiny Images "
    "(Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009; "
    "<https://www.cs.toronto.edu/~kriz/cifar.html>). Published without an explicit licence, with the request to cite "
    "that report. The Tiny Images were withdrawn by their authors in 2020 for offensive labels and pictures. No image "
    "is part of this package."
)

TERMS = {
    "cifar10": f"CIFAR-10: 50,000 training and 10,000 test images in 10 classes, {_TINY_IMAGES}",
    "cifar100": f"CIFAR-100: 50,000 training and 10,000 test images in 100 classes, {_TINY_IMAGES}",
    "digits": (
        "1,797 scanned digits of 8x8 pixels in 10 classes, as scikit-learn carries them (Alpaydin and Kaynak, *Optical "
        "Recognition of Handwritten Digits*, UCI Machine Learning Repository, CC BY 4.0)."
    ),
}
