/* Names of status codes. */
#include "bdnet.h"

const char *bd_status_name(bd_status status) {
    switch (status) {
    case BD_OK:
        return "BD_OK";
    case BD_ERROR_TRUNCATED:
        return "BD_ERROR_TRUNCATED";
    case BD_ERROR_MAGIC:
        return "BD_ERROR_MAGIC";
    case BD_ERROR_VERSION:
        return "BD_ERROR_VERSION";
    case BD_ERROR_CRC:
        return "BD_ERROR_CRC";
    case BD_ERROR_RECORD:
        return "BD_ERROR_RECORD";
    case BD_ERROR_TENSOR:
        return "BD_ERROR_TENSOR";
    case BD_ERROR_STEP:
        return "BD_ERROR_STEP";
    case BD_ERROR_KERNEL:
        return "BD_ERROR_KERNEL";
    case BD_ERROR_ARENA:
        return "BD_ERROR_ARENA";
    case BD_ERROR_ALIGNMENT:
        return "BD_ERROR_ALIGNMENT";
    case BD_ERROR_ARGUMENT:
        return "BD_ERROR_ARGUMENT";
    default:
        return "unknown status";
    }
}
