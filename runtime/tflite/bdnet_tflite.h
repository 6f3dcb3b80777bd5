/* Operators of Larq Compute Engine and ours, for TensorFlow Lite and LiteRT interpreters.
 *
 *     LceQuantize  LceDequantize  LceBconv2d  LceBMaxPool2d  BdDepthwiseConv2d
 *
 * A C++ application that includes TensorFlow Lite's headers adds them to its resolver in two lines:
 *
 *     #include "bdnet_tflite.h"
 *     bdnet_tflite_add_all(&resolver);
 *
 * The library is an external delegate too (tflite_plugin_create_delegate): an interpreter that was built without them,
 * such as the ones in Python packages, loads it at run time.
 *
 * An interpreter may be used by one thread at a time, as always; two interpreters share nothing. */
#ifndef BDNET_TFLITE_H
#define BDNET_TFLITE_H

#ifdef __cplusplus
extern "C" {
#endif

struct TfLiteRegistration;

/* Number of operators. */
int bdnet_tflite_count(void);
/* Name of operator 0 <= i < bdnet_tflite_count(), else NULL. */
const char *bdnet_tflite_name(int i);
/* Registration of that operator; a constant. NULL for another i. */
const struct TfLiteRegistration *bdnet_tflite_registration(int i);

#ifdef __cplusplus
}

/* Adds all operators to a tflite::MutableOpResolver. */
template <class Resolver> inline void bdnet_tflite_add_all(Resolver *resolver) {
    for (int i = 0; i < bdnet_tflite_count(); i++) {
        resolver->AddCustom(bdnet_tflite_name(i), bdnet_tflite_registration(i));
    }
}
#endif

#endif
